"""`lucidlm label-curve`: how many labels pretraining saves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lucidlm.cli.options import Config, Device, Encoding, Fields, HtmlOption, OnErrorOption, Out, PrecisionOption
from lucidlm.cli.training.finetune import Tuning

if TYPE_CHECKING:
    from lucidlm.train.finetune.label_curve import LabelCurve


def register(app: typer.Typer) -> None:
    app.command("label-curve")(label_curve)


def label_curve(
    task: Annotated[str | None, typer.Argument(help="What to learn; `lucidlm tasks` lists what there is.")] = None,
    model: Annotated[Path | None, typer.Option(help="The directory of a pretrained model.")] = None,
    data: Annotated[str | None, typer.Option(help="Examples to draw from.")] = None,
    test_data: Annotated[str | None, typer.Option(help="Examples to judge by.")] = None,
    shots: Annotated[str | None, typer.Option(help="Numbers of examples (of each label): 8,32,128,512.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many times each number is measured.")] = None,
    out: Out = None,
    config: Config = None,
    field: Fields = None,
    tuning: Annotated[Tuning | None, typer.Option(help="Which weights of the pretrained model are trained.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the examples, at least.")] = None,
    least_steps: Annotated[int | None, typer.Option(help="Steps of training, at least.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens that are read at once.")] = None,
    encoding: Encoding = None,
    html: HtmlOption = None,
    on_error: OnErrorOption = None,
    device: Device = None,
    precision: PrecisionOption = None,
) -> None:
    """Learn a task from few labels and from more: pretrained, from scratch, and by the linear baseline.

    What was measured is kept in --out: the same command goes on with it, and more shots or seeds add to it.

    Examples:

      lucidlm label-curve sentiment --model model --data train.jsonl --test-data test.jsonl --out curve
      lucidlm label-curve --config curve/config.yaml --seeds 5 --out curve
    """
    import signal

    from lucidlm.cli.options import given, renamed, required, resolve
    from lucidlm.core.progress import log
    from lucidlm.report.label_curve import report_curve
    from lucidlm.train.finetune.label_curve import LabelCurveConfig
    from lucidlm.train.finetune.label_curve import label_curve as measure

    directory = required(out, "--out")
    flags = given(
        {
            "task": task,
            "model": None if model is None else str(model),
            "data": data,
            "test_data": test_data,
            "shots": None if shots is None else tuple(shots.split(",")),
            "seeds": seeds,
            "fields": renamed(field),
            "tuning": tuning,
            "epochs": epochs,
            "least_steps": least_steps,
            "max_length": max_length,
            "encoding": encoding,
            "html": html,
            "on_error": on_error,
            "device": device,
            "precision": precision,
        }
    )
    if config is None:
        for value, option in ((task, "TASK"), (model, "--model"), (data, "--data"), (test_data, "--test-data")):
            required(value, option)
    curve, stopped_by = measure(resolve(LabelCurveConfig, config, flags), directory)
    if curve.points:
        report_curve(curve, directory / "report.html")
        print(table(curve))
    if stopped_by is not None:
        log(f"stopped by {signal.Signals(stopped_by).name}; the same command goes on from here")
        raise typer.Exit(128 + stopped_by)
    log(f"{directory}: report {directory / 'report.html'}")


def table(curve: LabelCurve) -> str:
    """Return the curve as lines of text: a row for each number of shots, means of the seeds, lowest and highest."""
    from lucidlm.report.label_curve import summarise, written
    from lucidlm.train.finetune.label_curve import BASELINE

    rows = summarise(curve)
    heads = [curve.baseline or method if method == BASELINE else method for method in rows[0][1]]
    cells = [[f"{shots:,}", *(written(points, curve.percent) for points in found.values())] for shots, found in rows]
    grid = [["shots", *heads], *cells]
    widths = [max(len(row[column]) for row in grid) for column in range(len(grid[0]))]
    seeds = len({point.seed for point in curve.points})
    title = f"{curve.metric} on {curve.test_examples:,} examples: mean of {seeds} seeds [lowest, highest]"
    lines = ("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in grid)
    return "\n".join([title, *lines])
