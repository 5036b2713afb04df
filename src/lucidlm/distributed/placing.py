"""Which way a model is put on several ranks."""

from __future__ import annotations

import torch
from torch import nn

from lucidlm.core.devices import free_memory
from lucidlm.core.errors import InputError
from lucidlm.core.settings import Parallel
from lucidlm.distributed.ranks import Ranks
from lucidlm.distributed.spread import LossOf, Replicated, Spread

BYTES_PER_WEIGHT = 16
"""Of training in fp32: the weight, its gradient, and two averages of it."""

SHARE_OF_MEMORY = 0.5
"""How much of a GPU a model whole may take; activations need the rest."""


def place(model: nn.Module, loss_of: LossOf, parallel: Parallel, ranks: Ranks, device: torch.device) -> Spread:
    """Put `model` on the ranks: "auto" shards it where a GPU would be half full of it.

    Parameters
    ----------
    loss_of: the summed loss of a model, which may be another one than `model`, and a batch.

    Raises
    ------
    InputError: it is to be sharded, and this PyTorch is too old for it.
    """
    if parallel == "auto":
        too_large = device.type == "cuda" and wants_shards(_bytes_of(model), free_memory(device))
        parallel = "fsdp" if any(row[0] for row in ranks.gather(too_large)) else "ddp"
    if parallel == "ddp":
        return Replicated(model, loss_of, ranks)
    # Slow to import, and below PyTorch 2.9 not all there.
    try:
        import lucidlm.distributed.shard_files  # noqa: F401 (its checkpoints need it)
        from lucidlm.distributed.sharded import Sharded
    except ImportError as error:
        raise InputError(
            f"PyTorch {torch.__version__} lacks what shards a model ({error})",
            where="--parallel",
            fix="Install PyTorch 2.9 or later, or pass ddp.",
        ) from None
    return Sharded(model, loss_of, ranks, device)


def surely_whole(parallel: Parallel, ranks: Ranks) -> bool:
    """Return whether each rank will have the whole model, as can be told before there is one."""
    return ranks.count == 1 or parallel == "ddp"


def wants_shards(byte_count: int, memory: float) -> bool:
    """Return whether a model is sharded on GPUs of so much free memory, if training it whole takes `byte_count`."""
    return byte_count > SHARE_OF_MEMORY * memory


def _bytes_of(model: nn.Module) -> int:
    """Return what training `model` whole takes, activations not counted."""
    return sum(
        parameter.numel() * (BYTES_PER_WEIGHT if parameter.requires_grad else 4) for parameter in model.parameters()
    )
