"""Which weights fine-tuning trains: all of them, low-rank adapters (LoRA), or the task's head alone.

Applied to an objective's model from outside, before training, and undone after it: objectives do not know of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from lucidlm.checkpoint.peft import save_adapter
from lucidlm.core.errors import InputError
from lucidlm.model.lora import add_adapters, merge
from lucidlm.train.finetune.config import FinetuneConfig

ADAPTER = "adapter"
"""The folder of the adapters, inside the model directory."""


def apply_tuning(model: nn.Module, config: FinetuneConfig, head: Sequence[str]) -> str:
    """Freeze the parameters of `model` that `config.tuning` does not train; return a line that says how many are trained.

    With "head" the backbone has no gradients, so its activations are not kept either.

    Parameters
    ----------
    head: name prefixes of the parameters that are new, not the pretrained model's.

    Raises
    ------
    InputError: tuning is "head" and the task has none, or the adapters' target matrices do not exist.
    """
    tune_backbone(model, config)
    if config.tuning != "full":
        fresh = [parameter for name, parameter in model.named_parameters() if name.split(".")[0] in head]
        for parameter in fresh:
            parameter.requires_grad_(True)
        if config.tuning == "head" and not fresh:
            raise InputError(
                f"{config.task} adds no head to the model that could be trained alone",
                where="tuning",
                fix="Pass lora or full.",
            )
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    return f"{config.tuning}: trains {count:,} of {total:,} parameters ({count / total:.1%})"


def tune_backbone(model: nn.Module, config: FinetuneConfig) -> None:
    """Put adapters on `model`, or freeze it, as `config.tuning` says."""
    if config.tuning == "lora":
        add_adapters(model, config.lora, config.loop.seed)
    elif config.tuning == "head":
        model.requires_grad_(False)


def finish_tuning(model: nn.Module, config: FinetuneConfig, head: Sequence[str], out: Path) -> None:
    """Save the adapters, if any, in `out/adapter` and merge them into the model's weights.

    Raises
    ------
    LucidError: the disk is full.
    """
    if config.tuning == "lora":
        save_adapter(model, out / ADAPTER, base=config.model, head=head)
        merge(model)
