"""`lucidlm pretrain`: from prepared data to a language model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lucidlm.cli.from_config import add_command
from lucidlm.cli.options import Config, Out, Resume, Webhook
from lucidlm.core.errors import InputError

if TYPE_CHECKING:
    from lucidlm.train.pretrain.config import PretrainConfig

SHOWN = (
    "data",
    "out",
    "config",
    "loop.minutes",
    "loop.max_steps",
    "resume",
    "objective",
    "depth",
    "shape.num_layers",
    "shape.embedding_dim",
    "shape.num_heads",
    "shape.ff_dim",
    "shape.dropout",
    "context_length",
    "batch_size",
    "micro_batch",
    "loop.optimizer.name",
    "loop.optimizer.learning_rate",
    "loop.schedule.name",
    "loop.patience",
    "loop.checkpoint_steps",
    "loop.track",
    "webhook",
    "loop.on_spike",
    "compile",
    "loop.parallel",
    "device",
    "precision",
    "force",
    "loop.seed",
)
PLANNED = tuple(name for name in SHOWN if name not in ("resume", "force", "loop.track", "webhook"))
"""What a plan of it takes too."""


def register(app: typer.Typer) -> None:
    add_command(app, pretrain, configurations, SHOWN)


def configurations() -> Sequence[type[PretrainConfig]]:
    """Return the classes that have the settings."""
    from lucidlm.train.pretrain.config import PretrainConfig

    return (PretrainConfig,)


def pretrain(
    out: Out = None, config: Config = None, resume: Resume = False, webhook: Webhook = None, *, settings: dict[str, Any]
) -> None:
    """Pretrain a language model on prepared data.

    Examples:

      lucidlm pretrain --data data --out model --minutes 30
      lucidlm pretrain --data web=0.7 --data books=0.3 --out model --depth 6 --max-steps 5000
      lucidlm pretrain --data data --out model --resume
      torchrun --nproc-per-node 8 -m lucidlm pretrain --data data --out model --minutes 30
      lucidlm pretrain --config model/config.yaml --out again
    """
    from lucidlm.cli.options import required
    from lucidlm.cli.training.finish import finish
    from lucidlm.core.config import CONFIG
    from lucidlm.core.flat import resumed
    from lucidlm.train.checkpoints import goes_on
    from lucidlm.train.pretrain.config import PretrainConfig
    from lucidlm.train.pretrain.run import pretrain as run

    directory = required(out, "--out")
    if goes_on(directory, resume):
        settings = _weighed(settings)
        finish(
            run(resumed(PretrainConfig, directory / CONFIG, settings), directory, resume=True, webhook=webhook),
            directory,
        )
        return
    finish(run(configured(config, settings), directory, webhook=webhook), directory)


def configured(config: Path | None, settings: dict[str, Any]) -> PretrainConfig:
    """Return the run that begins with the `settings`, over those in the file `config` if there is one.

    Raises
    ------
    InputError: one is wrong, or the data are not given.
    """
    from lucidlm.cli.options import required
    from lucidlm.core.flat import resolve
    from lucidlm.train.pretrain.config import PretrainConfig, new_run

    if config is None:
        required(settings.get("data"), "--data")
    return resolve(PretrainConfig, config, new_run(_weighed(settings), replayed=config is not None))


def _weighed(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with the data as directories and weights."""
    return {**settings, "data": parse_weights(settings["data"])} if "data" in settings else settings


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
