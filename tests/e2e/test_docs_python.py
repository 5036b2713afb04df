"""The Python of the documentation runs: each page's blocks in order, beside small files of the names that they use.

Both languages have the same code (`test_docs.py`), so that of the English pages is enough.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from tests.conftest import made_up_reviews

import lucidlm

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ELSEWHERE = ("transformers", "tensorflow", "onnxruntime", "interop.keras", "weights.safetensors", "of this shape")
"""What a block names that needs other software, or weights of the size that it names."""


def snippets(page: Path) -> list[str]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [block for block in found if not any(name in block for name in ELSEWHERE)]


PAGES = [page for page in sorted(DOCS.glob("*.md")) if snippets(page)]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, reviews_csv: Path, tiny_data: Path, tiny_model: Path) -> Path:
    """A folder with the files and models that the pages speak of, all of them tiny."""
    path = tmp_path_factory.mktemp("docs") / "shelf"
    path.mkdir()
    shutil.copy(reviews_csv, path / "reviews.csv")
    for name, seed in (("train.jsonl", 1), ("test.jsonl", 2)):
        rows = made_up_reviews(40, seed=seed)
        (path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    shutil.copytree(tiny_data, path / "data")
    for name in ("model", "assistant"):
        shutil.copytree(tiny_model, path / name)
    lucidlm.finetune("sentiment", model=tiny_model, data=reviews_csv, out=path / "judge", max_steps=2)
    labels = {"labels": "label"}
    lucidlm.finetune("multi-label", model=tiny_model, data=reviews_csv, fields=labels, out=path / "sorter", max_steps=2)
    (path / "train.conll").write_text("Ada B-PER\nwrote O\n\nBob B-PER\nleft O\n", encoding="utf-8")
    lucidlm.finetune(
        "token-tagging", model=tiny_model, data=path / "train.conll", test=0, out=path / "tagger", max_steps=2
    )
    return path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_of_a_page_runs(
    page: Path, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = tmp_path / "here"
    shutil.copytree(shelf, here)
    if page.name == "finetuning-and-evaluation.md":
        shutil.rmtree(here / "judge")  # the page makes it
    monkeypatch.chdir(here)
    names: dict[str, object] = {}
    for block in snippets(page):
        exec(compile(block, page.name, "exec"), names)
    assert capsys.readouterr().out
