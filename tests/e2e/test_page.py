"""The server's page in a browser without a window: what people do with it, by mouse and by keyboard."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.serving import TORCH, Server, in_memory, running, small_model, small_tokenizer, wait_until
from tests.speaking_model import saying

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.control.steering import SteeringVector, identity
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import SpanExtractor
from lucidlm.serve.config import ServeConfig
from lucidlm.serve.models import Models, open_models, serve_model
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import finetune

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

KEY = "correct-horse-battery"
PASSAGE = "It was built by Ada in 1871."


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("there is no Chromium with its driver here (apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--lang=en-US", "--window-size=1200,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driven = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield driven
    driven.quit()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, reviews_csv: Path) -> Models:
    torch.manual_seed(0)
    judge = tmp_path_factory.mktemp("page") / "judge"
    finetune(
        FinetuneConfig(task="sentiment", model=str(tiny_model), data=str(reviews_csv), epochs=1, device="cpu"), judge
    )
    small = small_model(4096)
    vector = tmp_path_factory.mktemp("vectors") / "glad.safetensors"
    SteeringVector(10 * torch.randn(32), 0, identity(small), 1.0, 8).save(vector)
    tiny = serve_model("tiny", in_memory(small, small_tokenizer()), ServeConfig(steer=(f"{vector}=0",)), TORCH)
    judges = open_models([str(judge)], ServeConfig(), TORCH, "cpu")
    tokenizer = small_tokenizer()
    words = [tokenizer.encode(letter)[0] for letter in "qzx"]
    endless = serve_model("endless", in_memory(saying(*words, context=65_536), tokenizer), ServeConfig(), TORCH)
    reads = Tokenizer.train_characters([PASSAGE])
    shape: dict[str, Any] = {"embedding_dim": 32, "num_heads": 2, "ff_dim": 48, "num_layers": 1, "context_length": 128}
    reader = SpanExtractor(ModelConfig(vocab_size=reads.vocab_size, causal=False, **shape)).eval()
    record = {"kind": "span", "provenance": {}}
    answers = serve_model("reader", LoadedModel(reader, reads, record, source="reader"), ServeConfig(), TORCH)
    return Models({"endless": endless, "tiny": tiny, "judge": judges.named("judge"), "reader": answers})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "first").mkdir()
    (folder / "first" / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": step, "train_loss": 5 / step}) + "\n" for step in range(1, 6))
    )
    return folder


@pytest.fixture(scope="module")
def server(models: Models, runs: Path) -> Iterator[Server]:
    with running(models, runs=str(runs)) as server:
        yield server


class Page:
    """What a person sees and does."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def open(self, url: str, panel: str = "") -> Page:
        self.browser.get("about:blank")
        self.browser.get(f"{url}/{panel}")
        self.wait(lambda: self.all("nav a"))
        return self

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> Any:
        self.wait(lambda: self.all(selector))
        return self.all(selector)[0]

    def text(self, selector: str) -> str:
        self.one(selector)
        # Looked up and read at once: what is live may be drawn anew in between.
        return self.browser.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def wait(self, condition: Callable[[], Any]) -> None:
        wait_until(condition)

    def focused(self) -> str:
        return self.browser.switch_to.active_element.get_attribute("id")

    def press(self, *keys: str) -> None:
        self.browser.switch_to.active_element.send_keys(*keys)


@pytest.fixture
def page(browser: Any) -> Iterator[Page]:
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get_log("performance")
    yield Page(browser)
    problems = [
        entry["message"] for entry in browser.get_log("browser") if "401 (Unauthorized)" not in entry["message"]
    ]
    assert [one for one in problems if "/runs - Failed" not in one] == []
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [one["params"]["request"]["url"] for one in sent if one["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if not url.startswith(("http://127.0.0.1", "data:", "about:"))] == []


def test_only_what_the_models_can_do_is_offered(server: Server, page: Page) -> None:
    page.open(server.url)
    assert [link.text for link in page.all("nav a")] == [
        "Chat",
        "Completion",
        "Sentiment",
        "Question answering",
        "Search",
        "Look inside",
        "Runs",
    ]


def test_a_reply_streams_and_can_be_stopped(server: Server, page: Page) -> None:
    page.open(server.url, "#chat")
    page.one("#chat-max_tokens").send_keys("12")
    page.one("#message").send_keys("the fox", Keys.ENTER)
    page.wait(lambda: "tokens in" in page.text(".status"))
    assert [turn.text.splitlines()[0] for turn in page.all(".turn")] == ["You", "Assistant"]
    assert page.text(".turn.assistant .cut").startswith("Cut short: the most tokens were reached")
    page.one("#chat-max_tokens").clear()
    page.one("#chat-max_tokens").send_keys("60000")
    page.one("#message").send_keys("again", Keys.SHIFT, Keys.ENTER, Keys.NULL, "and again", Keys.ENTER)
    page.wait(lambda: page.text("button.main") == "Stop" and len(page.all(".turn")) == 4)
    assert page.all(".turn.user .said")[1].text == "again\nand again"
    page.one("button.main").send_keys(Keys.ENTER)  # a pointer may miss it: the page scrolls while the reply comes
    page.wait(lambda: page.text(".status") == "Stopped.")
    writer = server.models.named("endless").writer
    assert writer is not None
    page.wait(lambda: writer.engine.running == 0)


def test_probabilities_by_keyboard(server: Server, page: Page) -> None:
    page.open(server.url, "#completion")
    page.browser.execute_script("document.getElementById('completion-max_tokens').value = 8")
    page.one("#prompt").send_keys("the", Keys.CONTROL, Keys.ENTER)
    page.wait(lambda: "8 tokens in" in page.text(".status"))
    assert len(page.all(".token")) == 8
    page.browser.execute_script("document.querySelector('.token').focus()")
    assert len(page.all(".tip:not([hidden]) div")) in (5, 6)
    shares = [float(one.text.removesuffix(" %")) for one in page.all(".tip span")]
    assert sum(shares) <= 100.5
    first = page.text(".tip")
    page.press(Keys.ARROW_RIGHT)
    assert page.text(".tip") != first
    assert page.browser.switch_to.active_element.get_attribute("aria-label")
    page.press(Keys.ESCAPE)
    page.wait(lambda: not page.all(".tip:not([hidden])"))


def test_a_text_of_a_form(server: Server, page: Page) -> None:
    page.open(server.url, "#completion")
    page.one("#prompt").send_keys("the")
    form = page.browser.find_element(By.ID, "completion-form")
    page.browser.execute_script("arguments[0].value = 'choices'; arguments[0].dispatchEvent(new Event('change'))", form)
    page.browser.execute_script("document.getElementById('completion-formText').value = 'yes\\nno'")
    page.browser.find_element(By.ID, "likely").click()
    page.one("button.main").click()
    page.wait(lambda: page.text(".texts .said") in ("yes", "no"))
    page.wait(lambda: "tokens in" in page.text(".status"))
    assert not page.all(".cut")  # it came to its end
    page.browser.execute_script("arguments[0].value = 'regex'", form)
    page.browser.execute_script("document.getElementById('completion-formText').value = '('")
    page.one("button.main").click()
    page.wait(lambda: "unclosed group" in page.text(".status.error"))
    page.browser.get_log("browser")  # the browser reports the 400 itself
    page.browser.execute_script("sessionStorage.clear()")


def test_a_task(server: Server, page: Page) -> None:
    page.open(server.url, "#task-sentiment")
    page.one("#task-text").send_keys("a wonderful film")
    page.one("button.main").click()
    page.one("meter")
    assert page.text(".large") in ("positive", "negative")
    shares = [float(one.text.removesuffix(" %")) for one in page.all(".bars .number")]
    assert sum(shares) == pytest.approx(100, abs=0.2)


def explained(page: Page) -> None:
    page.one(".why button").click()
    page.wait(lambda: page.all(".because h2") and not page.all(".because[aria-busy]"))


def test_why_a_label(server: Server, page: Page) -> None:
    page.open(server.url, "#task-sentiment")
    page.one("#task-text").send_keys("a wonderful film, the plot is dreadful")
    page.one("button.main").click()
    label = page.text(".large")
    explained(page)
    assert page.text(".because h2") == f"Why “{label}”"
    assert page.text(".because .tokens") == "a wonderful film, the plot is dreadful"
    assert "random" in page.text(".check-line")
    assert "What speaks for it most" in page.text("#announcement") or "No word" in page.text("#announcement")
    strengths = page.browser.execute_script(
        "return [...document.querySelectorAll('.because .token')].map((e) => e.style.getPropertyValue('--share'))"
    )
    assert "55%" in strengths  # the word that says most is the most strongly coloured
    [other] = {"negative", "positive"} - {label}
    page.browser.execute_script("document.getElementById('why-other').value = arguments[0]", other)
    explained(page)
    page.wait(lambda: page.text(".because h2") == f"Why “{label}” rather than “{other}”")


def test_why_by_keyboard_and_in_chinese(server: Server, page: Page) -> None:
    page.open(server.url, "#task-sentiment")
    page.one("#language").click()
    page.one("#task-text").send_keys("a wonderful film")
    page.one("button.main").click()
    assert page.text(".why button") == "为什么？"
    page.one(".why button").send_keys(Keys.ENTER)
    page.wait(lambda: page.all(".because h2") and not page.all(".because[aria-busy]"))
    assert page.text(".because h2").startswith("为什么是 ")
    page.browser.execute_script("document.querySelector('.because .token').focus()")
    said = page.browser.switch_to.active_element.get_attribute("aria-label")
    assert said.startswith("a: ")
    assert said.removeprefix("a: ") in page.text(".tip")
    page.press(Keys.ARROW_RIGHT)
    assert page.browser.switch_to.active_element.get_attribute("aria-label").startswith("wonderful: ")
    page.press(Keys.ESCAPE)
    page.wait(lambda: not page.all(".tip:not([hidden])"))
    page.one("#language").click()


def test_why_an_answer(server: Server, page: Page) -> None:
    page.open(server.url, "#task-question-answering")
    page.one("#task-question").send_keys("Who built it?")
    page.one("#task-context").send_keys(PASSAGE)
    page.one("button.main").click()
    answer = page.text(".large")
    explained(page)
    assert page.text(".because h2") == f"Why “{answer}”"
    assert [one.text for one in page.all(".because h3")] == ["Question", "Passage"]
    assert page.all(".because .held")
    page.one("#why-other").send_keys("Bob")
    page.one(".why button").click()
    page.wait(lambda: "does not stand in the passage" in page.text(".because .error"))
    page.browser.get_log("browser")  # the browser reports the 400 itself


def choose(page: Page, field: str, value: str) -> None:
    page.one(f"#{field}")
    page.browser.execute_script(
        "const field = document.getElementById(arguments[0]); field.value = arguments[1];"
        "for (const kind of ['input', 'change']) field.dispatchEvent(new Event(kind))",
        field,
        value,
    )


def test_a_slider_steers(server: Server, page: Page) -> None:
    page.open(server.url, "#completion")
    assert not page.all(".slider")  # this model has no vectors
    choose(page, "model", "tiny")
    for field, value in (("completion-max_tokens", "12"), ("completion-temperature", "0")):
        choose(page, field, value)
    page.browser.find_element(By.ID, "likely").click()
    texts = []
    for strength, shown in (("0", "0.0"), ("4", "+4.0"), ("-4", "−4.0"), ("0", "0.0")):
        choose(page, "completion-steer-glad", strength)
        assert page.text(".slider output") == shown
        page.browser.execute_script("document.querySelector('.status').textContent = ''")
        page.one("#prompt").clear()
        page.one("#prompt").send_keys("the", Keys.CONTROL, Keys.ENTER)
        page.wait(lambda: "12 tokens in" in page.text(".status"))
        texts.append(page.text(".texts .said"))
        assert page.text(".texts .cut").startswith("Cut short")
    assert texts[0] == texts[3]
    assert len(set(texts)) == 3
    page.browser.execute_script("sessionStorage.clear()")


def looked(page: Page, view: str) -> None:
    choose(page, "look-view", view)
    page.browser.execute_script("document.querySelector('.result').replaceChildren()")
    page.one("button.main").click()
    page.wait(lambda: page.all(".grid-view"))


def test_a_look_inside_by_keyboard_and_in_chinese(server: Server, page: Page) -> None:
    page.open(server.url, "#inspect")
    choose(page, "model", "tiny")
    page.one("#look-text").send_keys("the quick brown fox")
    looked(page, "attention")
    assert [one.text for one in page.all(".grid-view figcaption")] == [
        "layer 0, head 0",
        "layer 0, head 1",
        "What the answer loses without each head, in nats",
    ]
    assert "of the weight of later tokens rests on the first one" in page.text(".trust")
    assert "of the weight of later tokens" in page.text("#announcement")
    strengths = page.browser.execute_script(
        "return [...document.querySelectorAll('.heat')[0].querySelectorAll('tbody td')].map((cell) =>"
        " [cell.getAttribute('aria-label'), cell.style.getPropertyValue('--share')])"
    )
    assert strengths[0][0].endswith(": 1.00")  # the first token has nothing else to look at
    assert strengths[0][1] == "60%"
    cells = page.all(".heat tbody td")
    assert [cell.get_attribute("tabindex") for cell in cells[:3]] == ["0", "-1", "-1"]
    page.browser.execute_script("arguments[0].focus()", cells[0])
    assert page.text(".grid-view .hint").endswith("1.00")
    first = page.text(".grid-view .hint")
    page.press(Keys.ARROW_DOWN)
    page.press(Keys.ARROW_RIGHT)
    assert page.text(".grid-view .hint") != first
    assert page.browser.switch_to.active_element.get_attribute("aria-label") == page.text(".grid-view .hint")
    for view, title in (
        ("lens", "The likeliest token at each position"),
        ("norms", "The residual stream"),
        ("logits", "Added to"),
    ):
        looked(page, view)
        assert page.text(".grid-view figcaption").startswith(title)
    page.one("#language").click()
    assert page.text("button.main") == "透视"
    looked(page, "norms")
    assert page.text(".grid-view figcaption") == "每层之后的残差流"
    assert [one.text for one in page.all(".grid-view")[0].find_elements(By.CSS_SELECTOR, "th[scope=row]")] == [
        "嵌入",
        "第 0 层",
    ]
    page.one("#language").click()


def test_a_look_that_cannot_be_taken_says_why(server: Server, page: Page) -> None:
    page.open(server.url, "#inspect")
    choose(page, "model", "tiny")
    page.one("#look-text").send_keys("the")
    choose(page, "look-view", "logits")
    page.one("#look-target").send_keys("quick brown fox jumps")
    page.one("button.main").click()
    page.wait(lambda: "tokens of this model, one is needed" in page.text(".result .error"))
    page.browser.get_log("browser")  # the browser reports the 400 itself


def test_errors_stand_where_they_belong(server: Server, page: Page) -> None:
    page.open(server.url, "#completion")
    page.one("#prompt").send_keys("the")
    page.browser.execute_script("document.getElementById('completion-temperature').value = -1")
    page.one("button.main").click()
    page.wait(lambda: "temperature" in page.text(".status.error"))
    page.browser.get_log("browser")  # the browser reports the 400 itself


def test_search_ranks(server: Server, page: Page) -> None:
    page.open(server.url, "#search")
    page.browser.find_element(By.CSS_SELECTOR, "#model option[value=tiny]").click()
    page.one("#documents").send_keys("quick brown\nover the lazy dog\nfox")
    page.one("#query").send_keys("over the lazy dog", Keys.ENTER)
    assert page.text(".hits li .said") == "over the lazy dog"
    assert page.text(".hits .number") == "1.000"


def test_a_curve_that_grows(server: Server, page: Page, runs: Path) -> None:
    page.open(server.url, "#runs")
    assert "0" in page.text(".chart .legend")
    before = page.text(".chart .legend")
    with (runs / "first" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 6, "train_loss": 0.125}) + "\n")
    page.wait(lambda: "0.125" in page.text(".chart .legend"))
    assert "0.125" not in before


def test_chinese_and_back(server: Server, page: Page) -> None:
    page.open(server.url, "#chat")
    page.one("#language").click()
    assert page.all("nav a")[0].text == "对话"
    assert page.browser.execute_script("return document.documentElement.lang") == "zh-CN"
    page.open(server.url, "#chat")
    assert page.text("button.main") == "发送"
    page.one("#language").click()
    assert page.text("button.main") == "Send"


def test_the_keyboard_alone(server: Server, page: Page) -> None:
    page.open(server.url, "#task-sentiment")
    page.browser.execute_script("document.body.focus()")
    page.press(Keys.TAB)
    assert page.focused() == "skip"
    page.press(Keys.ENTER)
    assert page.focused() == "main"
    page.press(Keys.TAB)
    assert page.focused() == "task-text"
    page.press("dull film", Keys.TAB, Keys.ENTER)
    page.browser.switch_to.active_element.send_keys(Keys.ENTER)
    page.one("meter")


def test_a_key_is_asked_for(models: Models, page: Page, tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    keys.write_text(KEY)
    # Models that are closed with this server would be closed for the others.
    alone = Models({"tiny": serve_model("tiny", in_memory(small_model(), small_tokenizer()), ServeConfig(), TORCH)})
    with running(alone, api_keys=str(keys)) as server:
        page.browser.get(server.url)
        page.wait(lambda: page.one("#key-value").is_displayed())
        page.one("#key-value").send_keys(KEY, Keys.ENTER)
        page.wait(lambda: page.all("nav a"))
        assert page.all("nav a")[0].text == "Chat"
    page.browser.get("about:blank")
    page.browser.get_log("browser")


def test_narrow_screens_need_no_scrolling_sideways(server: Server, page: Page) -> None:
    for width in (360, 768, 1280):
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        for panel in ("#chat", "#completion", "#task-sentiment", "#search", "#inspect", "#runs"):
            page.open(server.url, panel)
            if panel == "#inspect":
                page.one("#look-text").send_keys("the quick brown fox jumps over the lazy dog")
                looked(page, "lens")
            assert not page.browser.execute_script("return document.documentElement.scrollWidth > innerWidth"), panel
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
