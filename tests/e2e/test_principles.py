"""The pages on principles: the quick ones run, in both languages, and the site's hooks do what they say.

`make docs` runs all of them. Here a small model with random weights stands for the one that a page fetches.
"""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import lucidlm
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
FOLDERS = (DOCS / "principles", DOCS / "zh-CN" / "principles")
REPOSITORY = "https://example.org/repository"


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = spec_from_file_location("build_site", DOCS / "build_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(folder: Path, page: str) -> str:
    return (folder / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", FOLDERS, ids=["en", "zh"])
@pytest.mark.parametrize(
    ("page", "stated"),
    [
        ("neuron.md", ["= 1.9", "= 0.870", "= 0.802"]),
        ("activation.md", ["| 0, 1 | 1 | 0.500 |"]),
        ("gradient-descent.md", ["| 1.1 | 6.60 | -1.32 |"]),
    ],
)
def test_a_quick_page_computes_what_it_states(site: ModuleType, folder: Path, page: str, stated: list[str]) -> None:
    built = site.with_results(read(folder, page), page)
    for words in stated:
        assert words in built
    assert "](data:image/svg+xml;base64," in built


@pytest.mark.parametrize("folder", FOLDERS, ids=["en", "zh"])
def test_attention_by_hand_is_the_models(site: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer.train_bpe(["The cat drank the milk because it was thirsty."], 262)
    shape = {"embedding_dim": 36, "num_heads": 9, "num_kv_heads": 3, "ff_dim": 16, "num_layers": 14}
    model = LanguageModel(ModelConfig(vocab_size=tokenizer.vocab_size, **shape), seed=1).eval()
    monkeypatch.setattr(lucidlm, "load_model", lambda source: LoadedModel(model, tokenizer, {}))
    markdown = read(folder, "attention.md")
    *steps, learned = site.PYTHON.findall(markdown)
    assert "weights[it, cat] > 0.5" in learned, "the last block is about what training has made of SmolLM2"
    printed = list(site.run_blocks("".join(f"```python\n{step}```\n" for step in steps), "attention.md"))
    assert len(printed) == 8
    assert all(table.startswith("|") for table in printed[2:6])


def test_both_languages_have_the_same_pages_and_the_site_shows_them_all() -> None:
    pages = [sorted(path.name for path in folder.glob("*.md")) for folder in FOLDERS]
    assert pages[0] == pages[1]
    shown = set(re.findall(r"^ +- (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    there = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert shown == there | {"index.md", "zh-CN/index.md"}


def test_every_page_ends_with_a_command() -> None:
    for folder in FOLDERS:
        for path in folder.glob("*.md"):
            if path.name != "README.md":
                *_, last = re.findall(r"^```(\w+)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.M | re.S)
                assert last[0] == "bash"
                assert last[1].startswith("lucidlm "), path


def test_a_page_whose_claim_is_wrong_is_not_built(site: ModuleType) -> None:
    page = "One\n\n```python\nsum_ = 1.4\n```\n\n```python\nassert sum_ == 1.9\n```\n"
    with pytest.raises(AssertionError) as caught:
        site.with_results(page, "docs/principles/neuron.md")
    assert caught.value.__notes__[0].startswith("In docs/principles/neuron.md, block 2:")


def test_each_language_has_a_folder_of_its_own_and_one_to_share(site: ModuleType) -> None:
    code = "import pathlib\npathlib.Path('own').touch(exist_ok=False)\npathlib.Path('../shared').touch()\n"
    for place in ("principles/a.md", "zh-CN/principles/a.md", "principles/a.md"):
        page, config = SimpleNamespace(file=SimpleNamespace(src_uri=place)), SimpleNamespace(repo_url=REPOSITORY)
        site.on_page_markdown(f"```python\n{code}```\n", page, config, [])
    assert sorted(path.name for path in site.folder("a").iterdir()) == ["en", "shared", "zh-CN"]


def test_what_a_block_prints_stands_below_it(site: ModuleType) -> None:
    page = "```python\nprint('| a |\\n|---|')\n```\n\n```python\nprint('b')\n```\n\n```bash\nls\n```\n"
    built = site.with_results(page, "page")
    assert "```\n\n| a |\n|---|\n\n```python" in built
    assert "```\n\n```text\nb\n```\n\n```bash\nls" in built
    assert site.shown("<svg><title>a &lt; b</title></svg>").startswith("![a < b](data:image/svg+xml;base64,")


def test_links_lead_to_the_site_or_into_the_repository(site: ModuleType) -> None:
    def moved(link: str, source: str) -> str:
        return site.with_site_links(f"[x]({link})", source, REPOSITORY)[4:-1]

    assert moved("docs/start.md#install", "README.md") == "start.md#install"
    assert moved("README.zh-CN.md", "README.md") == "zh-CN/index.md"
    assert moved("docs/zh-CN/data.md", "README.zh-CN.md") == "data.md"
    assert moved("LICENSE", "README.md") == f"{REPOSITORY}/LICENSE"
    assert moved("../../deploy/Containerfile", "docs/zh-CN/deploy.md") == f"{REPOSITORY}/deploy/Containerfile"
    assert moved("../zh-CN/data.md", "docs/data.md".replace("data", "principles/data")) == "../zh-CN/data.md"
    assert moved("https://example.org/a", "README.md") == "https://example.org/a"
    assert moved("#install", "docs/start.md") == "#install"
    fenced = "```python\nx = a[0](b)\n```\n"
    assert site.with_site_links(fenced, "docs/data.md", REPOSITORY) == fenced
