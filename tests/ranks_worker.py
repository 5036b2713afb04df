"""What each process of the tests on several ranks runs: a training run that keeps the gradients of every step.

`python tests/ranks_worker.py RUN.yaml…`, by itself or under torchrun, leaves the directory RUN beside each file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from lucidlm.train import loop, optim
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import finetune
from lucidlm.train.pretrain.config import PretrainConfig
from lucidlm.train.pretrain.run import pretrain
from lucidlm.train.step import clip_gradients

kept: list[Tensor] = []


def keep(model: nn.Module, largest: float) -> Tensor:
    """Clip the gradients, after a copy of them, whole, is kept as one vector."""
    with torch.no_grad():
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        whole = [one.full_tensor() if hasattr(one, "full_tensor") else one for one in gradients]  # pyright: ignore
        kept.append(torch.cat([one.flatten().double() for one in whole]))
    return clip_gradients(model, largest)


def main() -> None:
    loop.clip_gradients = keep
    optim.product_dtype = lambda device: torch.float32  # in bf16 a last bit may decide about the third digit
    for config in map(Path, sys.argv[1:]):
        kept.clear()
        out = config.with_suffix("")
        if "task:" in config.read_text(encoding="utf-8"):
            finetune(FinetuneConfig.load(config), out)
        else:
            pretrain(PretrainConfig.load(config), out)
        if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
            torch.save(torch.stack(kept), out / "gradients.pt")


main()
