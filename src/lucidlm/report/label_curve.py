"""The page of a label curve: the score of each method by the number of labelled examples."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from lucidlm.report.language import Language
from lucidlm.report.page import Block, Cell, Facts, LineChart, Page, Series, Table
from lucidlm.train.label_curve.record import BASELINE, OTHER, PRETRAINED, SCRATCH, LabelCurve, Point
from lucidlm.version import __version__


def report_curve(curve: LabelCurve, out: str | Path, language: Language | None = None) -> None:
    """Write the page of a label curve to `out`.

    Raises
    ------
    LucidError: the disk is full.
    """
    language = language or Language()
    t, task, metric = language.text, str(curve.settings["task"]), language.name(curve.metric)
    facts = [(name, str(value)) for name, value in {**curve.settings, **curve.machine}.items()]
    page = Page(
        title=t("Few labels: {task}", task=language.name(task)),
        lead=t(
            "{metric} on {examples} held-out examples, tuned on few labels: with pretraining, from scratch, and by the "
            "baseline.",
            metric=metric,
            examples=f"{curve.test_examples:,}",
        ),
        blocks=[*curve_blocks(curve, language), Facts(t("Configuration"), facts, folded=True)],
        footer=t("Written by lucidlm {version} on {date}.", version=__version__, date=f"{datetime.now(UTC):%Y-%m-%d}"),
    )
    page.write(out, language)


def curve_blocks(curve: LabelCurve, language: Language) -> list[Block]:
    """Return the plot and the table of a label curve."""
    t, names = language.text, curve_names(curve, language)
    seeds = len({point.seed for point in curve.points})
    table = Table(
        title=t("Mean of {seeds} seeds, and lowest to highest of them", seeds=seeds),
        columns=[t("examples of each label") if curve.by_label else t("labelled examples"), *names.values()],
        rows=[
            [Cell(f"{shots:,}", shots), *(_cell(by_method[method], curve.percent) for method in names)]
            for shots, by_method in summarise(curve)
        ],
    )
    return [curve_chart(curve, language), table]


def curve_names(curve: LabelCurve, language: Language) -> dict[str, str]:
    """Return what the methods of a curve are called, the pretrained model first."""
    return {
        method: language.name(curve.baseline or method if method == BASELINE else method) for method in _methods(curve)
    }


def curve_chart(curve: LabelCurve, language: Language) -> LineChart:
    """Return the plot of a label curve."""
    t, metric, rows = language.text, language.name(curve.metric), summarise(curve)
    series = []
    for method, name in curve_names(curve, language).items():
        found = [points for _, by_method in rows if (points := by_method[method])]
        values = [[point.value for point in points] for points in found]
        series.append(
            Series(
                name=name,
                x=[mean([point.examples for point in points]) for points in found],
                y=[mean(group) for group in values],
                marks=True,
                intervals=([min(group) for group in values], [max(group) for group in values]),
            )
        )
    return LineChart(
        title=t("{metric} by number of labelled examples", metric=metric),
        series=series,
        x_label=t("labelled examples"),
        y_label=metric,
        log_x=True,
        caption=t(
            "Lines: mean of the seeds. Bars: lowest and highest of them. One seed draws the same examples for all methods."
        ),
    )


def summarise(curve: LabelCurve) -> list[tuple[int, dict[str, list[Point]]]]:
    """Return, for each number of shots, the points of all seeds by method, the pretrained model first."""
    methods = _methods(curve)
    shots = sorted({point.shots for point in curve.points})
    return [(number, {method: curve.of(method, number) for method in methods}) for number in shots]


def _methods(curve: LabelCurve) -> list[str]:
    found = {point.method for point in curve.points}
    return [method for method in (PRETRAINED, OTHER, SCRATCH, BASELINE) if method in found]


def written(points: Sequence[Point], percent: bool) -> str:
    """Format the mean of the seeds with the lowest and the highest; a dash if there is no point."""
    values, digits = [point.value for point in points], 1 if percent else 4
    if not values:
        return "–"
    return f"{mean(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def mean(values: Sequence[float]) -> float:
    """Return the mean."""
    return sum(values) / len(values)


def _cell(points: Sequence[Point], percent: bool) -> Cell:
    return Cell(written(points, percent), mean([point.value for point in points]) if points else None)
