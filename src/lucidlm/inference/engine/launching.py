"""How the kernels of a step are launched: tiles and splits, as measured on an H100 with models of 100 M parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MUCH = 200_000
"""Bytes of shared memory that a block has on the GPUs these sizes are for; with less, steps are a quarter as long."""


@dataclass(frozen=True)
class Launch:
    """How the kernels of one step are launched.

    Parameters
    ----------
    rows: sequences of the step.
    itemsize: bytes of a weight.
    much: whether there is much shared memory.
    early: whether a kernel may begin, and load its weights, while the one before still runs.
    """

    rows: int
    itemsize: int
    much: bool
    early: bool

    @property
    def tile(self) -> int:
        """Rows that a program of a product takes. One alone is multiplied without matrix units, which take 16."""
        return 1 if self.rows == 1 else min(64, max(16, next_power(self.rows)))

    @property
    def tiles(self) -> int:
        return -(-self.rows // self.tile)

    @property
    def splits(self) -> int:
        """Over how many programs the columns of a sequence are split: with few sequences, many programs."""
        return 16 if self.rows <= 16 else 4

    @property
    def columns(self) -> int:
        """Columns that a program of a product within a layer takes."""
        return 4 if self.tile == 1 else 16

    @property
    def columns_of_logits(self) -> int:
        return 16 if self.tile == 1 else 64

    def step(self, depth: int) -> int:
        """Return how much of `depth` is multiplied at a time: where a sequence is alone, all that registers hold."""
        return self._sized(2048 if self.tile == 1 else 256, depth)

    def step_of_logits(self, depth: int) -> int:
        return self._sized(1024 if self.tile == 1 else 64, depth)

    def step_of_heads(self, depth: int, half: int) -> int:
        """Return the same for queries, keys and values, of heads with twice `half` dimensions."""
        return self._sized(max(64, 1024 * 32 // half), depth)

    def _sized(self, usual: int, depth: int) -> int:
        """Return a step of `usual` 2-byte numbers in what is at hand, no longer than `depth`."""
        return max(16, min(usual * 2 // self.itemsize // (1 if self.much else 4), next_power(depth)))

    @property
    def options(self) -> dict[str, Any]:
        """Options of kernels that take a product."""
        return self._product(stages=1 if self.tile == 1 else 3)

    @property
    def unstaged(self) -> dict[str, Any]:
        """Options of those that take it at once."""
        return self._product(stages=1)

    @property
    def attending(self) -> dict[str, Any]:
        return self._with(warps=4, stages=2)

    @property
    def small(self) -> dict[str, Any]:
        """Options of kernels with little to do."""
        return self._with(warps=2, stages=1)

    def _product(self, *, stages: int) -> dict[str, Any]:
        return self._with(warps=4, stages=stages) | {"STAGED": stages > 1}

    def _with(self, *, warps: int, stages: int) -> dict[str, Any]:
        early = {"launch_pdl": True} if self.early else {}
        return {"EARLY": self.early, "num_warps": warps, "num_stages": stages, **early}


def launch_for(rows: int, weight: Tensor) -> Launch:
    """Return how a step of so many sequences is launched where `weight` is."""
    if weight.device.type != "cuda":  # Triton's interpreter
        return Launch(rows, weight.element_size(), much=True, early=False)
    from lucidlm.inference.engine.decode_kernels import BEGINS_EARLY

    facts = torch.cuda.get_device_properties(weight.device)
    much = getattr(facts, "shared_memory_per_block_optin", 0) >= MUCH
    return Launch(rows, weight.element_size(), much, early=BEGINS_EARLY and facts.major >= 9)


def next_power(size: int) -> int:
    """Return the next power of two, 16 at least: what kernels take."""
    return max(16, 1 << (size - 1).bit_length())
