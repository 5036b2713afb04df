"""Explanations as files: a page that loads nothing, a picture, or JSON."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from lucidlm.core.amounts import percent
from lucidlm.core.errors import InputError
from lucidlm.core.io import write_json
from lucidlm.explain.explanation import Explanation
from lucidlm.explain.generation import GenerationExplanation
from lucidlm.explain.survey import Survey
from lucidlm.metrics.statistics import Estimate
from lucidlm.report.language import Language
from lucidlm.report.page import (
    Block,
    Cell,
    ColouredText,
    ConfusionMatrix,
    Facts,
    Heading,
    HeatMap,
    LineChart,
    Page,
    Series,
    Table,
)
from lucidlm.report.picture import explanation_drawing, write_png
from lucidlm.version import __version__

MOST_CONFUSIONS = 20
"""Mistakes that a page shows, the most confident first."""

Explained = Explanation | GenerationExplanation | Survey


def require_format(out: Path, *, pictured: bool = True) -> None:
    """Raise an InputError if explanations are not written as files of such a name."""
    known = (".html", ".json", *((".png",) if pictured else ()))
    if out.suffix not in known:
        raise InputError(
            f"{out.name!r} is no name of a file that explanations are written to",
            where="--out",
            fix=f"End it in one of: {', '.join(known)}.",
        )


def write_explanation(found: Explained, out: Path, language: Language | None = None) -> None:
    """Write an explanation to `out`, as its name says: .html, .png (not of a data set) or .json.

    Raises
    ------
    InputError: the name is another one, or a package that draws or a font for its characters is missing.
    """
    require_format(out, pictured=not isinstance(found, Survey))
    if out.suffix == ".json":
        write_json(out, found.as_dict())
    elif out.suffix == ".png" and not isinstance(found, Survey):
        write_png(explanation_drawing(found).svg(), out)
    else:
        explanation_page(found, language or Language()).write(out, language or Language())


def explanation_page(found: Explained, language: Language) -> Page:
    """Return the page of an explanation."""
    t = language.text
    lead = t("What moved this prediction, and how far that can be trusted. It describes the model, not the world.")
    if isinstance(found, Survey):
        title = t("What drives {model}", model=Path(found.model).name)
        lead = t("{texts} texts of {data}, explained by each method that applies.", texts=found.texts, data=found.data)
        blocks = list(_survey(found, language))
    elif isinstance(found, Explanation):
        target = found.target or t("no answer")
        title = (
            t("Why {target}", target=target)
            if found.rather_than is None
            else t("Why {target} rather than {other}", target=target, other=found.rather_than or t("no answer"))
        )
        blocks = [*_coloured(found, language), _checks(found.verdict(), language)]
    else:
        title = t("Each piece of a continuation")
        columns = found.pieces[:-1]
        caption = t("Row by row: what a piece that was written rests on, of those before it.")
        caption += " " + _caption(found.unit, found.method, language)
        blocks = [
            HeatMap(t("Text"), found.pieces[found.start :], columns, found.attributions, caption),
            _checks(found.verdict(), language),
        ]
    footer = t("Written by lucidlm {version} on {date}.", version=__version__, date=f"{datetime.now(UTC):%Y-%m-%d}")
    return Page(title, lead, blocks, footer)


def _coloured(found: Explanation, language: Language) -> list[ColouredText]:
    t, caption = language.text, _caption(found.unit, found.method, language)
    if found.passage is None:
        return [ColouredText(t("Text"), found.pieces, caption)]
    largest = max(abs(value) for _, value in found.pieces)
    held = [place - found.passage for place in found.held]
    caption += " " + t("The answer is underlined.")
    return [
        ColouredText(t("Question"), found.pieces[: found.passage], scale=largest),
        ColouredText(t("Passage"), found.pieces[found.passage :], caption, held, largest),
    ]


def _caption(unit: str, method: str, language: Language) -> str:
    return language.text(
        "Green speaks for it, red against it, {unit}, by {method}.", unit=language.text(unit), method=method
    )


def _checks(lines: list[str], language: Language) -> Facts:
    parts = [line.partition(": ") for line in lines]
    return Facts(language.text("Checks"), [(name, value) for name, _, value in parts])


def _survey(found: Survey, language: Language) -> Iterator[Block]:
    t = language.text
    yield Heading(t("Methods"), found.verdict())
    chance = found.random
    random = (chance.comprehensiveness, chance.sufficiency, chance.deletion, chance.insertion)
    columns = ("comprehensiveness", "sufficiency", "deletion area", "insertion area", "beats random deletion")
    yield Table(
        t("Methods"),
        [t("method"), *(t(name) for name in columns), t("agreement"), t("seconds")],
        [
            [
                Cell(one.method),
                *(
                    _estimate(figure)
                    for figure in (
                        one.comprehensiveness,
                        one.sufficiency,
                        one.deletion,
                        one.insertion,
                        one.better,
                        one.agreement,
                    )
                ),
                Cell(f"{one.seconds:.3f}", one.seconds),
            ]
            for one in found.methods
        ]
        + [
            [
                Cell(t("random order")),
                *(Cell(f"{value:.3f}", value) for value in random),
                Cell("–"),
                Cell("–"),
                Cell("–"),
            ]
        ],
        caption=t(
            "In probabilities, with 95 % intervals. High is good for comprehensiveness and insertion, low for the other "
            "two. Beats random deletion: the share of predictions with a probability of 0.9 or more where it does at "
            "p < 0.05."
        ),
    )
    for label, words in found.words.items():
        yield Table(
            t("Words that drive {label}", label=label),
            [t("word"), t("mean attribution"), t("texts")],
            [[Cell(word), Cell(f"{value:+.3f}", value), Cell(f"{texts}", texts)] for word, value, texts in words],
        )
    yield Heading(t("Confusions"))
    yield ConfusionMatrix(t("Which labels are taken for which"), found.labels, found.counts)
    for one in found.confusions[:MOST_CONFUSIONS]:
        title = t(
            "{label} taken for {predicted}, {probability}",
            label=one.label,
            predicted=one.predicted,
            probability=percent(one.probability),
        )
        yield ColouredText(title, one.pieces)
    bins, error = found.reliability.bins, found.reliability.error
    yield LineChart(
        t("Reliability"),
        [
            Series(t("accuracy"), [x for x, _, _ in bins], [y for _, y, _ in bins], marks=True),
            Series(t("as it should be"), [x for x, _, _ in bins], [x for x, _, _ in bins]),
        ],
        t("confidence"),
        t("accuracy"),
        caption=t(
            "Calibration error {error} ({low} to {high}).",
            error=f"{error.value:.3f}",
            low=f"{error.low:.3f}",
            high=f"{error.high:.3f}",
        ),
    )


def _estimate(found: Estimate | None) -> Cell:
    return Cell("–") if found is None else Cell(f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})", found.value)
