"""The model in shards (FSDP2): each rank keeps a part of every weight, its gradient and the optimiser's averages.

Zhao et al. 2023, arXiv:2304.11277. A block's weights are whole only while it is computed. Evaluation, and whatever an
objective does with its model once it is trained, need it whole and plain: for that time it is, on every rank, at four bytes
a weight.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from lucidlm.distributed.ranks import Ranks
from lucidlm.distributed.spread import LossOf, Spread, StepLoss
from lucidlm.model.transformer import Transformer


class Sharded(Spread):
    """The model that was given keeps its name, and loses its weights while its sharded copy is trained."""

    in_shards: ClassVar[bool] = True

    def __init__(self, model: nn.Module, loss_of: LossOf, ranks: Ranks, device: torch.device) -> None:
        super().__init__(ranks)
        self._given, self.model = model, copy.deepcopy(model)
        mesh = init_device_mesh(device.type, (ranks.count,))
        for block, original in zip(blocks(self.model), blocks(model), strict=True):
            if original._compiled_call_impl is not None:  # which a copy is without
                block.compile()
            fully_shard(block, mesh=mesh)
        self._module = StepLoss(self.model, loss_of)
        fully_shard(self._module, mesh=mesh)
        self._leave()

    def loss(self, batch: object, *, last: bool) -> Tensor:
        return self._module(batch)  # gradients of every micro-batch are reduced to shards, which takes the least memory

    @contextmanager
    def whole(self) -> Iterator[None]:
        self.keep_whole()
        yield
        self._leave()

    @torch.no_grad()
    def keep_whole(self) -> None:
        for plain, shard in zip(self._given.parameters(), self.model.parameters(), strict=True):
            assert isinstance(shard, DTensor)
            plain.data = shard.full_tensor()

    def _leave(self) -> None:
        for plain in self._given.parameters():
            plain.data = plain.data.new_empty(0)


def blocks(model: nn.Module) -> list[nn.Module]:
    """Return the blocks of all Transformers in `model`."""
    return [block for module in model.modules() if isinstance(module, Transformer) for block in module.layers]


def map_matrices(function: Callable[[Tensor], Tensor], rows: list[Tensor], matrices: list[DTensor]) -> list[Tensor]:
    """Return what `function` makes of whole matrices, each rank taking its share of them.

    Parameters
    ----------
    function: maps matrices (n, R, C) to as many of their shape; zeros to anything.
    rows: this rank's rows (r, C) of each matrix; what is returned are those of the results.
    matrices: what they belong to, or stand in the place of: all of one shape and sharded by rows.
    """
    mesh = matrices[0].device_mesh
    count, total = mesh.size(), matrices[0].shape[0]
    each = -(-total // count)  # as torch.chunk cuts
    heights = [max(0, min(each, total - rank * each)) for rank in range(count)]
    share = -(-len(rows) // count)  # matrices a rank takes; the last ones may be blanks
    blanks = [torch.zeros_like(rows[0])] * (share * count - len(rows))
    own = torch.stack([*rows, *blanks])  # (N, r, C)
    width = own.shape[-1]
    here, there = [share * len(rows[0]) * width] * count, [share * height * width for height in heights]
    parts = _exchange(own.flatten(), here, there, mesh).split(there)
    whole = torch.cat([part.view(share, -1, width) for part in parts if len(part)], dim=1)  # (share, R, C)
    results = [part.flatten() for part in function(whole).split(heights, dim=1)]
    return list(_exchange(torch.cat(results), there, here, mesh).view(own.shape)[: len(rows)])


def _exchange(sent: Tensor, sent_sizes: list[int], received_sizes: list[int], mesh: object) -> Tensor:
    received = sent.new_empty(sum(received_sizes))
    distributed.all_to_all_single(received, sent.contiguous(), received_sizes, sent_sizes, group=mesh.get_group())  # pyright: ignore
    return received
