"""How a model lies on several ranks: whole on each (DDP), or in shards (FSDP2).

Either way what a rank calls is one module whose forward is the objective's loss, so that PyTorch's hooks see every way
that an objective has of using its model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from inspect import signature
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lucidlm.distributed.ranks import Ranks

LossOf = Callable[[nn.Module, Any], Tensor]

_NAMES = signature(DistributedDataParallel).parameters
NO_BUFFERS: Any = {"forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers": False}
"""Buffers are constants here, which need not be sent at every step; the option has another name since PyTorch 2.13."""


class StepLoss(nn.Module):
    """The objective's loss as a module around its model."""

    def __init__(self, model: nn.Module, loss_of: LossOf) -> None:
        super().__init__()
        self.model, self.loss_of = model, loss_of

    def forward(self, batch: Any) -> Tensor:
        return self.loss_of(self.model, batch)


class Spread(ABC):
    """A model on several ranks.

    Gradients are averaged over ranks by PyTorch, so a loss that is to be added up over them has to be multiplied by their
    number. All ranks have to call `loss`, and its backward, equally often.

    `model` has the parameters that the optimiser updates; `spare` is a batch to be read, with no weight, by a rank that
    has none while others still have.
    """

    model: nn.Module

    in_shards: ClassVar[bool] = False
    """Whether the parameters of `model` are sharded."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.spare: Any = None

    @abstractmethod
    def loss(self, batch: Any, *, last: bool) -> Tensor:
        """Return the loss of a micro-batch; gradients are exchanged in the backward pass of the step's last one."""

    @abstractmethod
    def whole(self) -> Any:
        """Return a context in which the model that was given has all its weights on every rank."""

    @abstractmethod
    def keep_whole(self) -> None:
        """Give that model all its weights for good: training is over."""


class Replicated(Spread):
    """The model whole on every rank (DistributedDataParallel: Li et al. 2020, arXiv:2006.15704)."""

    def __init__(self, model: nn.Module, loss_of: LossOf, ranks: Ranks) -> None:
        super().__init__(ranks)
        self.model = model
        self._module = DistributedDataParallel(StepLoss(model, loss_of), gradient_as_bucket_view=True, **NO_BUFFERS)

    def loss(self, batch: Any, *, last: bool) -> Tensor:
        with nullcontext() if last else self._module.no_sync():
            return self._module(batch)

    def whole(self) -> Any:
        return nullcontext()

    def keep_whole(self) -> None:
        """It is whole anyway."""
