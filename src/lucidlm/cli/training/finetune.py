"""`lucidlm finetune`: from a pretrained model to one that does a task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lucidlm.cli.from_config import add_command
from lucidlm.cli.options import Config, LabelField, Out, Resume, TextField, Webhook

if TYPE_CHECKING:
    from lucidlm.core.config import Config as Configuration
    from lucidlm.train.finetune.config import FinetuneConfig

SHOWN = (
    "task",
    "model",
    "data",
    "out",
    "config",
    "fields",
    "text_field",
    "label_field",
    "validation_data",
    "validation",
    "test",
    "on_conflict",
    "shots",
    "tuning",
    "lora.rank",
    "attention",
    "epochs",
    "loop.minutes",
    "loop.max_steps",
    "batch_size",
    "max_length",
    "pooling",
    "dropout",
    "label_smoothing",
    "wide",
    "class_weights",
    "layer_decay",
    "temperature",
    "synthetic",
    "monitor",
    "loop.optimizer.name",
    "loop.optimizer.learning_rate",
    "loop.on_spike",
    "resume",
    "loop.track",
    "webhook",
    "loop.parallel",
    "encoding",
    "html",
    "on_error",
    "device",
    "precision",
    "force",
    "loop.seed",
)
PLANNED = tuple(name for name in SHOWN if name not in ("resume", "force", "loop.track", "webhook"))
"""What a plan of it takes too."""


def register(app: typer.Typer) -> None:
    add_command(app, finetune, configurations, SHOWN, arguments=("task",))


def configurations() -> Sequence[type[Configuration]]:
    """Return the classes that have the settings."""
    from lucidlm.train.finetune.config import FinetuneConfig

    return FinetuneConfig.variants()


def finetune(
    out: Out = None,
    config: Config = None,
    text_field: TextField = None,
    label_field: LabelField = None,
    resume: Resume = False,
    webhook: Webhook = None,
    *,
    settings: dict[str, Any],
) -> None:
    """Fine-tune a pretrained model for a task.

    Examples:

      lucidlm finetune sentiment --model model --data reviews.csv --out judge
      lucidlm finetune text-classification --model model --data news.jsonl --validation-data dev.jsonl --out judge
      lucidlm finetune translation --model model --data pairs.tsv --field source=en --field target=fr --out translator
      lucidlm finetune question-answering --model model --data squad.jsonl --tuning lora --out reader
      lucidlm finetune token-tagging --model model --data train.conll --validation-data dev.conll --test 0 --out tagger
      lucidlm finetune --config judge/config.yaml --out again
    """
    from lucidlm.cli.options import required
    from lucidlm.cli.training.finish import finish
    from lucidlm.core.config import CONFIG
    from lucidlm.core.flat import resumed
    from lucidlm.train.checkpoints import goes_on
    from lucidlm.train.finetune.config import FinetuneConfig
    from lucidlm.train.finetune.run import finetune as run

    directory = required(out, "--out")
    if goes_on(directory, resume):
        settings = _named(settings, text_field, label_field)
        finish(
            run(resumed(FinetuneConfig, directory / CONFIG, settings), directory, resume=True, webhook=webhook),
            directory,
        )
        return
    finish(run(configured(config, settings, text_field, label_field), directory, webhook=webhook), directory)


def configured(
    config: Path | None, settings: dict[str, Any], text_field: str | None, label_field: str | None
) -> FinetuneConfig:
    """Return the run that begins with the `settings`, over those in the file `config` if there is one.

    Raises
    ------
    InputError: one is wrong, or task, model or data are not given.
    """
    from lucidlm.cli.options import required
    from lucidlm.core.flat import resolve
    from lucidlm.train.finetune.config import FinetuneConfig

    if config is None:
        for path, option in (("task", "TASK"), ("model", "--model"), ("data", "--data")):
            required(settings.get(path), option)
    return resolve(FinetuneConfig, config, _named(settings, text_field, label_field))


def _named(settings: dict[str, Any], text_field: str | None, label_field: str | None) -> dict[str, Any]:
    """Return the settings with the names of fields as pairs."""
    from lucidlm.cli.options import given, renamed

    fields = renamed(settings.get("fields"), text=text_field, label=label_field)
    return {**{name: value for name, value in settings.items() if name != "fields"}, **given({"fields": fields})}
