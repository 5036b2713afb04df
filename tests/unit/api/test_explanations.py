"""Explanations of data sets and of generated texts, and the files they are written to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.unit.api.conftest import Made

import lucidlm
from lucidlm.api.explanation_results import GenerationExplanationResult, SurveyResult
from lucidlm.core.errors import InputError
from lucidlm.report import fonts
from lucidlm.report.explanation import explanation_page, write_explanation
from lucidlm.report.language import Language


@pytest.fixture(scope="module")
def surveyed(made: Made) -> SurveyResult:
    return lucidlm.explain_data(made.judge.path, made.reviews, limit=6)


@pytest.fixture(scope="module")
def written(made: Made) -> GenerationExplanationResult:
    return lucidlm.explain_generated(made.model.path, "A dull film", length=5)


def test_a_survey_has_figures_of_each_method(surveyed: SurveyResult) -> None:
    found = surveyed.explanation
    assert found.texts + found.left_out == 6
    assert {one.method for one in found.methods} >= {"occlusion", "shapley"}
    assert surveyed.recommended in {one.method for one in found.methods}
    for one in found.methods:
        assert one.comprehensiveness.low <= one.comprehensiveness.value <= one.comprehensiveness.high
    assert np.sum(found.counts) == found.texts
    assert sum(count for _, _, count in found.reliability.bins) == found.texts
    assert len(found.confusions) == found.texts - np.trace(found.counts)
    assert "recommended: " in found.verdict()
    assert json.loads(json.dumps(surveyed.to_dict()))["labels"] == list(found.labels)


def test_each_piece_of_a_continuation_rests_on_those_before_it(written: GenerationExplanationResult) -> None:
    found = written.explanation
    assert "".join(found.pieces) == found.text + found.continuation
    assert "".join(found.pieces[: found.start]) == found.text
    assert [len(row) for row in found.attributions] == list(range(found.start, len(found.pieces)))
    assert all(value <= 0 for value in found.logprobs)
    assert len(written.rows()) == sum(map(len, found.attributions))


def test_a_continuation_that_is_given_is_explained(made: Made) -> None:
    found = lucidlm.explain_generated(made.model.path, "A dull", continuation=" film", method="occlusion").explanation
    assert found.continuation == " film"
    whole = lucidlm.explain(made.model.path, "A dull", target=" film", method="occlusion").explanation
    assert sum(found.logprobs) == pytest.approx(whole.logprob, abs=1e-4)


@pytest.mark.parametrize("code", ["en", "zh"])
def test_pages_show_it_all_and_escape_it(
    code: str, made: Made, surveyed: SurveyResult, written: GenerationExplanationResult
) -> None:
    language = Language(code)  # pyright: ignore[reportArgumentType]
    text = lucidlm.explain(made.judge.path, "a <b> & 电影", by="word").explanation
    page = explanation_page(text, language).render(language)
    assert "&lt;" in page
    assert "<b>" not in page.partition("attributed")[2]
    assert "电" in page
    heat = explanation_page(written.explanation, language).render(language)
    assert heat.count('<td class="') == sum(map(len, written.explanation.attributions))
    whole = explanation_page(surveyed.explanation, language).render(language)
    for name in ("occlusion", "shapley", *surveyed.explanation.labels):
        assert name in whole


def test_files_are_what_their_names_say(made: Made, written: GenerationExplanationResult, tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="pictures need Pillow")
    pytest.importorskip("resvg_py", reason="pictures need resvg-py")
    from PIL import Image

    text = lucidlm.explain(made.judge.path, "A dull\x07 film with a wonderful ending.").explanation
    for name in ("a.html", "a.json", "a.png"):
        write_explanation(text, tmp_path / name)
    assert json.loads((tmp_path / "a.json").read_text())["target"] == text.target
    write_explanation(written.explanation, tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        with Image.open(tmp_path / name) as image:
            colours = image.convert("RGB").getcolors(1 << 20)
            assert colours is not None
            assert len(colours) > 3
    with pytest.raises(InputError, match=r"'a.jpg' is no name of a file .* End it in one of: .html, .json, .png"):
        write_explanation(text, tmp_path / "a.jpg")


def test_a_picture_without_a_font_for_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("PIL", reason="pictures need Pillow")
    monkeypatch.setattr(fonts, "_font_files", list)
    fonts.font_for("plain", 14)
    with pytest.raises(InputError, match="no font of this system has all characters"):
        fonts.font_for("电影", 14)


def test_what_cannot_be_surveyed_is_said(made: Made) -> None:
    with pytest.raises(InputError, match="holds no classifier of texts"):
        lucidlm.explain_data(made.model.path, made.reviews)
    with pytest.raises(InputError, match="by: there is no by 'letter'"):
        lucidlm.explain_data(made.judge.path, made.reviews, by="letter")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="--length: is less than 1"):
        lucidlm.explain_generated(made.model.path, "A film", length=0)
    with pytest.raises(InputError, match="Leave out --length"):
        lucidlm.explain_generated(made.judge.path, "A film")
