"""Results are data: a line to print, a dictionary, a data frame, and a table in a notebook."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.conftest import made_up_curve
from tests.unit.api.conftest import Made

import lucidlm
from lucidlm import InputError
from lucidlm.api.html import coloured, curve, table
from lucidlm.api.results import LabelCurveResult, Result


class Balanced(HTMLParser):
    """Checks that every tag that is opened is closed, in order, and collects the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def label_curve_result(path: Path) -> LabelCurveResult:
    values = {"pretrained": lambda shots: 0.6 + shots / 200, "from scratch": lambda _: 0.5, "baseline": lambda _: 0.55}
    found = made_up_curve([*values], lambda method, shots, _: values[method](shots))
    return LabelCurveResult(path / "curve.json", found, path / "report.html", None)


@pytest.fixture(scope="module")
def results(made: Made) -> dict[str, Result]:
    return {
        "data": made.data,
        "model": made.model,
        "judge": made.judge,
        "judged": made.judged,
        "held out": lucidlm.evaluate(made.model.path, data=made.data.path),
        "compared": lucidlm.compare(made.judge.path, made.judge.path),
        "explained": lucidlm.explain(made.judge.path, "a <b> & a dull film", method="occlusion"),
        "curve": label_curve_result(made.path),
    }


NAMES = ["data", "model", "judge", "judged", "held out", "compared", "explained", "curve"]


@pytest.mark.parametrize("name", NAMES)
def test_every_result_is_a_line_a_dictionary_a_frame_and_a_table(name: str, results: dict[str, Result]) -> None:
    result = results[name]
    assert re.fullmatch(r"\w+\(.+\)", repr(result))  # in which . is no line's end
    assert json.loads(json.dumps(result.to_dict())).keys() == result.to_dict().keys()
    assert len(result.to_pandas()) == len(result.rows()) > 0
    assert Balanced(result._repr_html_()).text


def test_lines_say_what_matters(made: Made, results: dict[str, Result]) -> None:
    path = str(made.judge.path)
    assert re.match(
        rf"TrainedModel\('{re.escape(path)}', validation accuracy \d\.\d{{4}}, .*; 4 steps, \d+ s\)", repr(made.judge)
    )
    assert re.match(r"PreparedData\('.*data', [\d,]+ tokens, vocabulary of 400\)", repr(made.data))
    assert re.search(
        r"sentiment on .*\(test\): accuracy \d\.\d{4} \[\d\.\d{4}, \d\.\d{4}\], \d+ examples", repr(made.judged)
    )
    assert "loss " in repr(results["held out"])
    assert "no difference shown" in repr(results["compared"])
    assert repr(results["curve"]).endswith("accuracy at 8, 32 shots, 2 seeds)")


def test_a_run_that_was_stopped_says_so(made: Made) -> None:
    stopped = replace(made.judge, outcome=replace(made.judge.outcome, stopped_by=2))
    assert repr(stopped).endswith("s; stopped by SIGINT, resume=True goes on)")


def test_figures_are_by_name(made: Made, results: dict[str, Result]) -> None:
    assert made.judged.figures["accuracy"] == made.judged.evaluation.model.metrics["accuracy"].value
    assert made.judge.figures.keys() >= {"validation_accuracy"}
    assert made.judge.seconds > 0


def test_notebooks_get_links_pictures_and_colours(made: Made, results: dict[str, Result]) -> None:
    assert 'href="' in made.judge._repr_html_()
    assert "TF-IDF" in made.judged._repr_html_()
    assert "<svg" in results["curve"]._repr_html_()
    explained = results["explained"]._repr_html_()
    assert "rgba(" in explained
    assert "&lt;" in explained
    assert "<b>" not in explained


def test_html_is_escaped() -> None:
    assert "<script>" not in table([{"<script>": "<script>"}], "<script>")
    assert "<script>" not in coloured([("<script>", 1.0)])
    assert "<script>" not in curve({"<script>": [(8, 0.5)]}, "<script>")
    assert curve({}, "nothing") == ""
    assert coloured([("a", 0.0)]).count("rgba") == 1


def test_without_pandas_it_says_what_to_do(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match=r"pandas is not installed\. Install it"):
        made.data.to_pandas()
