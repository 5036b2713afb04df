"""`lucidlm pretrain`: from prepared data to a language model."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from lucidlm.cli.options import (
    Config,
    Device,
    LearningRate,
    MaxSteps,
    Minutes,
    Optimizer,
    Out,
    PrecisionOption,
    Resume,
    Seed,
    Switch,
)
from lucidlm.core.errors import InputError

DEFAULT_MINUTES = 10.0


class Objective(StrEnum):
    """What the model learns to predict."""

    causal = "causal"
    masked = "masked"
    hybrid = "hybrid"


class ScheduleName(StrEnum):
    """How the learning rate rises and falls."""

    trapezoid = "trapezoid"
    cosine = "cosine"


def register(app: typer.Typer) -> None:
    app.command()(pretrain)


def pretrain(
    data: Annotated[
        list[str] | None, typer.Option(help="A directory that `data prepare` made; DIR=WEIGHT in a mixture of several.")
    ] = None,
    out: Out = None,
    config: Config = None,
    minutes: Minutes = None,
    max_steps: MaxSteps = None,
    resume: Resume = False,
    objective: Annotated[
        Objective | None, typer.Option(help="causal (GPT-style), masked (BERT-style), hybrid (both).")
    ] = None,
    depth: Annotated[
        int | None, typer.Option(help="The dial for all sizes; set from the time given if left out.")
    ] = None,
    num_layers: Annotated[int | None, typer.Option(help="Layers, where not as many as the depth.")] = None,
    embedding_dim: Annotated[int | None, typer.Option(help="Width, where not 64 times the depth.")] = None,
    num_heads: Annotated[int | None, typer.Option(help="Attention heads, where not one for every 64 of width.")] = None,
    ff_dim: Annotated[int | None, typer.Option(help="Width of the MLP, where not 8/3 of the width.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Share of activations dropped in training.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens a sample, and the model's context.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples a step.")] = None,
    micro_batch: Annotated[int | None, typer.Option(help="Samples taken at once, where memory is short.")] = None,
    optimizer: Optimizer = None,
    learning_rate: LearningRate = None,
    schedule: Annotated[ScheduleName | None, typer.Option(help="trapezoid or cosine.")] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many evaluations without a better loss.")] = None,
    checkpoint_steps: Annotated[
        int | None, typer.Option(help="Save the state every so many steps, not every 5 minutes.")
    ] = None,
    compile: Annotated[
        Switch | None, typer.Option(help="torch.compile; auto where the run is long enough to pay.")
    ] = None,
    device: Device = None,
    precision: PrecisionOption = None,
    seed: Seed = None,
) -> None:
    """Pretrain a language model on prepared data.

    Examples:

      lucidlm pretrain --data data --out model --minutes 30
      lucidlm pretrain --data web=0.7 --data books=0.3 --out model --depth 6 --max-steps 5000
      lucidlm pretrain --data data --out model --resume
      lucidlm pretrain --config model/config.yaml --out again
    """
    from lucidlm.cli.options import given, required, resolve, resumed
    from lucidlm.cli.training.finish import finish
    from lucidlm.core.config import CONFIG
    from lucidlm.train.pretrain.run import PretrainConfig
    from lucidlm.train.pretrain.run import pretrain as run

    directory = required(out, "--out")
    flags = given(
        {
            "data": parse_weights(data) if data else None,
            "objective": objective,
            "depth": depth,
            "shape.num_layers": num_layers,
            "shape.embedding_dim": embedding_dim,
            "shape.num_heads": num_heads,
            "shape.ff_dim": ff_dim,
            "shape.dropout": dropout,
            "context_length": context,
            "batch_size": batch_size,
            "micro_batch": micro_batch,
            "device": device,
            "precision": precision,
            "compile": compile,
            "loop.minutes": minutes,
            "loop.max_steps": max_steps,
            "loop.patience": patience,
            "loop.checkpoint_steps": checkpoint_steps,
            "loop.seed": seed,
            "loop.optimizer.name": optimizer,
            "loop.optimizer.learning_rate": learning_rate,
            "loop.schedule.name": schedule,
        }
    )
    if resume:
        finish(run(resumed(PretrainConfig, directory / CONFIG, flags), directory, resume=True), directory)
        return
    if config is None:
        required(data, "--data")
        if minutes is None and max_steps is None:
            flags["loop.minutes"] = DEFAULT_MINUTES
    if any(name.startswith(("data", "depth", "shape.", "context_length", "objective")) for name in flags):
        flags["model"] = None  # the shape that a replayed file settled on no longer holds
    finish(run(resolve(PretrainConfig, config, flags), directory), directory)


def parse_weights(data: list[str]) -> dict[str, float]:
    """Read `DIR` and `DIR=WEIGHT`; a directory without a weight has weight 1."""
    weights = {}
    for item in data:
        path, _, weight = item.rpartition("=")
        try:
            weights[path or item] = float(weight) if path else 1.0
        except ValueError:
            raise InputError(f"{weight!r} is not a number", where=f"--data {item}", fix="Write DIR=0.5.") from None
    return weights
