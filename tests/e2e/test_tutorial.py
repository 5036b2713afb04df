"""The tutorial notebooks run from top to bottom, and their results show themselves."""

from __future__ import annotations

import ast
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from lucidlm.api.explanation_results import ExplanationResult
from lucidlm.api.results import EvaluationResult

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NOTEBOOKS = [EXAMPLES / "tutorial.ipynb", EXAMPLES / "tutorial.zh-CN.ipynb"]


def cells(notebook: Path) -> list[dict[str, Any]]:
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def run(source: str, names: dict[str, Any]) -> Any:
    """Run a cell; return the value of its last line, which a notebook would show."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_the_tutorial_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names: dict[str, Any] = {}
    shown = [run("".join(cell["source"]), names) for cell in cells(notebook) if cell["cell_type"] == "code"]
    assert all(value is not None for value in shown)
    judged, explained = shown[-2:]
    assert isinstance(judged, EvaluationResult)
    assert judged.figures["accuracy"] > 0.7
    assert isinstance(explained, ExplanationResult)
    assert "rgba(" in explained._repr_html_()


def test_the_tutorials_are_the_same_in_both_languages() -> None:
    english, chinese = (cells(notebook) for notebook in NOTEBOOKS)
    assert len(english) == len(chinese) == 10
    assert [cell["cell_type"] for cell in english] == [cell["cell_type"] for cell in chinese]
    assert not any(cell.get("outputs") for cell in (*english, *chinese)), "notebooks are kept without their output"
