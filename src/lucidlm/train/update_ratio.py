"""How far a step moves the matrices of each part of a model: the norm of the update over the norm of the weights.

About 1e-3 is the rule of thumb (Karpathy, Li and Johnson, cs231n.github.io/neural-networks-3): a rate that moves them much
further may be too high, and one that hardly moves them too low.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Literal

import torch
from torch import Tensor, nn

from lucidlm.distributed.ranks import ALONE, Ranks
from lucidlm.model.lora import is_adapter
from lucidlm.train.optim import own_part

Part = Literal["embeddings", "attention", "mlp", "head", "adapters"]

ENTRIES = 2**16
"""Entries of a matrix that are looked at, evenly spaced, so that no copy of the model is needed: their ratio is that of all
of them to about half a percent."""
TIMES = 100
"""How often it is measured over a run."""


class UpdateRatio:
    """Measures steps of an optimiser on `model`; a parameter that is not trained or no matrix is left out.

    Of a model in shards each of the `ranks` looks at its own.
    """

    def __init__(self, model: nn.Module, ranks: Ranks = ALONE, *, in_shards: bool = False) -> None:
        self.ranks = ranks if in_shards else ALONE
        self._parts: dict[Part, list[Tensor]] = defaultdict(list)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and parameter.dim() == 2:
                self._parts[part_of(name)].append(parameter)

    @torch.no_grad()
    def before(self) -> dict[Part, list[Tensor]]:
        """Return what `after` needs to know of the weights before a step."""
        return {part: [_some(matrix).clone() for matrix in matrices] for part, matrices in self._parts.items()}

    @torch.no_grad()
    def after(self, before: dict[Part, list[Tensor]]) -> dict[Part, float]:
        """Wait for the step; return the ratio of each part, but for those that were zero before it."""
        sums: list[Tensor] = []
        for part, matrices in self._parts.items():
            pairs = [
                (_some(matrix), old, _stands_for(matrix, old))
                for matrix, old in zip(matrices, before[part], strict=True)
            ]
            sums.append(torch.stack([each * (new - old).square().sum() for new, old, each in pairs]).sum())
            sums.append(torch.stack([each * old.square().sum() for _, old, each in pairs]).sum())
        read = torch.stack(sums).tolist() if sums else []
        whole = [sum(column) for column in zip(*self.ranks.gather(*read), strict=True)]
        found = zip(self._parts, whole[::2], whole[1::2], strict=True)
        return {part: math.sqrt(moved / weight) for part, moved, weight in found if weight > 0}


def is_due(done: float, ahead: float) -> bool:
    """Return whether it is measured in the step that brings a run from the share `done` to the share `ahead`."""
    return int(TIMES * done + 1e-9) < int(TIMES * ahead + 1e-9)  # 0.29 * 100 is less than 29


def part_of(name: str) -> Part:
    """Return the part of a model that the parameter of this name belongs to."""
    if is_adapter(name):
        return "adapters"
    if ".self_attn." in name:
        return "attention"
    if ".mlp." in name:
        return "mlp"
    return "embeddings" if "embed_" in name else "head"


def _some(matrix: Tensor) -> Tensor:
    """Return some of the entries of a matrix, or of the part that this rank has: (n,), at most twice `ENTRIES`."""
    flat = own_part(matrix).detach().flatten()
    return flat[:: max(1, flat.numel() // ENTRIES)].float()


def _stands_for(matrix: Tensor, some: Tensor) -> float:
    """Return how many entries of a matrix each of `some` stands for."""
    return own_part(matrix).numel() / max(1, len(some))
