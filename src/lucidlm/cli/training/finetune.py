"""`lucidlm finetune`: from a pretrained model to one that does a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from lucidlm.cli.from_config import add_command
from lucidlm.cli.options import Config, LabelField, Out, Resume, TextField

if TYPE_CHECKING:
    from lucidlm.core.config import Config as Configuration

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
    "resume",
    "loop.parallel",
    "encoding",
    "html",
    "on_error",
    "device",
    "precision",
    "loop.seed",
)


def register(app: typer.Typer) -> None:
    add_command(app, finetune, _configurations, SHOWN, arguments=("task",))


def _configurations() -> Sequence[type[Configuration]]:
    from lucidlm.train.finetune.config import FinetuneConfig

    return FinetuneConfig.variants()


def finetune(
    out: Out = None,
    config: Config = None,
    text_field: TextField = None,
    label_field: LabelField = None,
    resume: Resume = False,
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
    from lucidlm.cli.options import given, renamed, required
    from lucidlm.cli.training.finish import finish
    from lucidlm.core.config import CONFIG
    from lucidlm.core.flat import resolve, resumed
    from lucidlm.train.checkpoints import goes_on
    from lucidlm.train.finetune.config import FinetuneConfig
    from lucidlm.train.finetune.run import finetune as run

    directory = required(out, "--out")
    settings |= given({"fields": renamed(settings.pop("fields", None), text=text_field, label=label_field)})
    if goes_on(directory, resume):
        finish(run(resumed(FinetuneConfig, directory / CONFIG, settings), directory, resume=True), directory)
        return
    if config is None:
        for path, option in (("task", "TASK"), ("model", "--model"), ("data", "--data")):
            required(settings.get(path), option)
    finish(run(resolve(FinetuneConfig, config, settings), directory), directory)
