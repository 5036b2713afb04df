"""The fewest tokens that a text has."""

from __future__ import annotations

import math
from collections.abc import Collection
from copy import copy

from torch import Tensor

from lucidlm.inference.logits_processor import LogitsProcessor


class MinLength(LogitsProcessor):
    """Rules out the tokens that end a text until it has so many."""

    def __init__(self, length: int, ends: Collection[int]) -> None:
        self._left, self._ends = length, list(ends)

    def process(self, logits: Tensor) -> None:
        if self._left > 0:
            logits[self._ends] = -math.inf

    def push(self, token: int) -> None:
        self._left -= 1

    def fork(self) -> MinLength:
        return copy(self)
