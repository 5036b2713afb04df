"""The chart of a scaling law, as a page or as a picture."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from lucidlm.core.errors import InputError
from lucidlm.core.io import write_text
from lucidlm.plan.scaling_runs import Scaling
from lucidlm.report.language import Language
from lucidlm.report.page import Cell, LineChart, Notes, Page, Series, Table
from lucidlm.report.svg import chart_file
from lucidlm.version import __version__

POINTS = 60
"""Budgets at which the curve is drawn."""


def require_drawable(path: Path) -> None:
    """Refuse a file that is neither a page nor a picture.

    Raises
    ------
    InputError: its name has another ending.
    """
    if path.suffix.lower() not in (".html", ".svg"):
        raise InputError(f"{path.name!r} is no page and no picture", where="--out", fix="Name a file .html or .svg.")


def draw_scaling(found: Scaling, path: Path) -> None:
    """Write a scaling law to `path`: an .html page with a table, or the chart alone as .svg.

    Raises
    ------
    InputError: the name has another ending.
    LucidError: the disk is full.
    """
    require_drawable(path)
    chart = scaling_chart(found)
    if path.suffix.lower() == ".svg":
        write_text(path, chart_file(chart))
        return
    table = Table(
        title="Runs",
        columns=["run", "parameters", "tokens", "FLOPs", "loss", "curve"],
        rows=[
            [
                Cell(str(run.directory)),
                *(Cell(f"{value:,.6g}", value) for value in (run.parameters, run.tokens, run.flops)),
                *(Cell(f"{value:.4f}", value) for value in (run.loss, found.law.predict(found.of(run)).loss)),
            ]
            for run in found.runs
        ],
    )
    told = [f"{name.strip()}: {value}" for name, value in found.rows() if not name.startswith("  ")]
    page = Page(
        title="Scaling law",
        lead="What a larger budget will reach, by a few small runs. A prediction, not a measurement.",
        blocks=[chart, Notes("What it says", told), table, Notes("Rests on", [*found.advice, *found.assumptions])],
        footer=f"Written by lucidlm {__version__} on {datetime.now(UTC):%Y-%m-%d}.",
    )
    page.write(path, Language())


def scaling_chart(found: Scaling) -> LineChart:
    """Return the curve with its interval, the runs, and what is predicted."""
    spent = [found.of(run) for run in found.runs]
    budgets = np.geomspace(spent[0], max(spent[-1], found.target or 0.0), POINTS).tolist()
    curve = [found.law.predict(budget) for budget in budgets]
    series = [
        Series(
            "curve",
            budgets,
            [at.loss for at in curve],
            intervals=([at.low for at in curve], [at.high for at in curve]),
        ),
        Series("runs", spent, [run.loss for run in found.runs], marks=True),
    ]
    if found.check is not None:
        ends = ([found.check.low], [found.check.high])
        series.append(
            Series("largest, predicted by the others", [spent[-1]], [found.check.loss], marks=True, intervals=ends)
        )
    if found.predicted is not None and found.target is not None:
        ends = ([found.predicted.low], [found.predicted.high])
        series.append(Series("predicted", [found.target], [found.predicted.loss], marks=True, intervals=ends))
    return LineChart(
        title=f"Held-out loss by {found.budget}",
        series=series,
        x_label=found.budget,
        y_label="nats a token",
        log_x=True,
        caption="Faint bars: intervals of the curve. They know how far runs lie from it, not whether it goes on.",
    )
