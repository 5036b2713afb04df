"""What computes: the one interface between the engine and the ways of running a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Stretch(NamedTuple):
    """Tokens of one sequence that are read in one step.

    Parameters
    ----------
    tokens: one or more ids.
    start: how many tokens of the sequence have been read before them.
    blocks: the numbers of the blocks that hold the sequence up to the end of `tokens`, in order.
    wanted: for how many of the last of them logits are wanted; none, where more of a prompt follows.
    written: how many of the last of them are no prompt's, but chosen or guessed.
    steering: how strongly each of the backend's directions is added; none: not at all.
    """

    tokens: list[int]
    start: int
    blocks: list[int]
    wanted: int = 1
    written: int = 0
    steering: tuple[float, ...] = ()

    @property
    def draft(self) -> list[int]:
        """Of the last tokens, those that nobody has chosen yet: logits are wanted for the one before them too."""
        return self.tokens[len(self.tokens) - self.wanted + 1 :] if self.wanted > 1 else []


class Direction(NamedTuple):
    """What a backend adds to the residual stream behind a block, as strongly as each sequence asks for.

    Parameters
    ----------
    layer: which block, from 0.
    vector: (D,) fp32.
    """

    layer: int
    vector: Tensor


def strengths_of(stretches: Sequence[Stretch], directions: Sequence[Direction]) -> Tensor:
    """Return how strongly each direction is added in each stretch, (n, directions) fp32."""
    return torch.tensor([one.steering or (0.0,) * len(directions) for one in stretches], dtype=torch.float32)


class Backend(Protocol):
    """A model with a cache of its own, in blocks of `block_size` tokens that the engine hands out."""

    block_size: int
    blocks: int
    """How many blocks there are."""
    token_bytes: int
    """What a token's keys and values take."""
    has_own_threads: bool
    """Whether something else than PyTorch computes."""

    def read(self, stretches: Sequence[Stretch]) -> Tensor:
        """Read stretches of different sequences, and keep their keys and values.

        Returns the logits (n, V), fp32, after the last tokens of each, as many as are wanted, one stretch after the other;
        the caller may overwrite them.
        """
        ...

    def copy(self, blocks: Sequence[tuple[int, int]]) -> None:
        """Copy what blocks hold: of each pair from the first to the second."""
        ...
