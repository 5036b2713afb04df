"""The parts of a training step that depend on where the model's parts are: gradients and what the host reads of them.

Nothing here waits for the device but `read_figures`, once a step. On several ranks `batches` are those of this rank, and
what is counted and read is added up over all ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from lucidlm.core.devices import Compute
from lucidlm.distributed.ranks import ALONE, Ranks
from lucidlm.distributed.spread import Spread

Batch = TypeVar("Batch")


class Objective(Protocol[Batch]):
    """What is optimised: where batches come from, what they cost, and how good the model is at it."""

    monitor: str
    """The name, in what `evaluate` returns, of the figure that decides which weights are best."""

    higher_is_better: bool

    noise: float
    """The standard error of that figure when it was last measured: differences of less are chance. 0: not known."""

    def batches(self, first_step: int) -> Iterator[Sequence[Batch]]:
        """Yield this rank's part of each step's batch as micro-batches, from `first_step` on; the same whenever asked."""
        ...

    def counted(self, batch: Batch) -> int:
        """Return how many tokens (or examples) of a micro-batch count in the loss, without asking the device."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of a micro-batch summed over what counts, a scalar on the device."""
        ...

    def tokens(self, batch: Batch) -> int:
        """Return how many tokens the model reads for a micro-batch."""
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Measure the model on held-out data, in the number format of its choice; empty where nothing is held out."""
        ...

    def describe(self, step: int) -> str:
        """Say which data a step's batch is made of, for a person looking for what broke it."""
        ...


def count_targets(objective: Objective[Batch], batches: Sequence[Batch]) -> int:
    """Return how many tokens (or examples) of the global batch count in the loss."""
    return sum(objective.counted(batch) for batch in batches)


def accumulate_gradients(
    model: nn.Module,
    objective: Objective[Batch],
    batches: Sequence[Batch],
    compute: Compute,
    spread: Spread | None = None,
) -> Tensor:
    """Add the gradients of the global batch's mean loss to those of `model`.

    Parameters
    ----------
    batches: those of this rank, which may be fewer than another's.
    spread: how the model lies on several ranks; None: there is one.

    Returns
    -------
    losses: (micro-batches,), on the device; their sum over all ranks is the mean loss. They are not summed there, since
        fp32 would round what the log is to say.
    """
    counted = count_targets(objective, batches)
    if spread is not None:
        return _accumulate_on_ranks(spread, counted, batches, compute)
    losses = []
    for batch in batches:
        with torch.autocast(compute.device.type, compute.dtype, enabled=compute.autocasts):
            loss = objective.loss(model, batch) / counted
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses)


def _accumulate_on_ranks(spread: Spread, counted: int, batches: Sequence[Any], compute: Compute) -> Tensor:
    """Do likewise on each rank: all of them read as many micro-batches as the one that has most."""
    ranks, losses = spread.ranks, []
    told = ranks.gather(counted, len(batches))
    everywhere, turns = sum(row[0] for row in told), int(max(row[1] for row in told))
    for turn in range(turns):
        batch, weight = (batches[turn], 1.0) if turn < len(batches) else (spread.spare, 0.0)
        with torch.autocast(compute.device.type, compute.dtype, enabled=compute.autocasts):
            loss = weight * spread.loss(batch, last=turn == turns - 1) / everywhere
        (ranks.count * loss).backward()  # PyTorch takes the mean over ranks
        losses.append(loss.detach())
    return torch.stack(losses)


def clip_gradients(model: nn.Module, largest: float) -> Tensor:
    """Scale the gradients of `model` to a norm of `largest` at most; return the norm they had, a scalar on the device."""
    norm = nn.utils.clip_grad_norm_(model.parameters(), largest)
    whole = getattr(norm, "full_tensor", None)  # of a model in shards
    return norm if whole is None else whole()


def read_figures(losses: Tensor, norm: Tensor, ranks: Ranks = ALONE) -> tuple[float, float]:
    """Wait for the device; return the step's mean loss and the norm of its gradient."""
    *parts, gradient_norm = torch.cat((losses, norm[None])).tolist()
    return sum(row[0] for row in ranks.gather(sum(parts))), gradient_norm
