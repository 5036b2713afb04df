"""An example as a language model reads and writes it: token ids, which of them it is to predict, where it takes over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Framed:
    """A prompt and what is to be written after it.

    Parameters
    ----------
    ids: (T,) int32, prompt and answer.
    counted: (T,) bool, the tokens that the model is to predict.
    prompt: how many of the tokens stand before what it writes when it is asked.
    left_out: how many tokens (or, of a conversation, turns) were left out for want of room.
    """

    ids: np.ndarray
    counted: np.ndarray
    prompt: int
    left_out: int = 0

    @property
    def prefix(self) -> int:
        """How many tokens stand before the first one to be predicted: these may all see each other."""
        return int(self.counted.argmax()) if self.counted.any() else self.prompt


def frame(parts: Sequence[tuple[Sequence[int], bool]], prompt: int | None = None, left_out: int = 0) -> Framed:
    """Join stretches of ids, each with whether the model is to predict them.

    `prompt` is how many of the *parts* make up the prompt; None: those before the first that is to be predicted.
    """
    if prompt is None:
        prompt = next((place for place, (_, counts) in enumerate(parts) if counts), len(parts))
    ids = np.fromiter((token for part, _ in parts for token in part), dtype=np.int32)
    counted = np.repeat([counts for _, counts in parts], [len(part) for part, _ in parts])
    return Framed(ids, counted.astype(bool), sum(len(part) for part, _ in parts[:prompt]), left_out)
