"""A prefix cache within a batch: texts with a common prefix, say the answers to one question, read it once.

Texts are merged where they share a prefix. The result is a tree of tokens, laid out as one row: a token's position is
its depth, and it attends to its ancestors and nothing else (SpecInfer's tree attention: Miao et al. 2023, arXiv:2305.09781,
section 4.2). One pass over the row computes for each text what a pass over that text alone would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

LONGEST = 2048
"""Tokens of a tree: past that, attention from all to all costs more than reading a beginning again."""


@dataclass
class Tree:
    """Texts that share prefixes, as one row of tokens.

    Parameters
    ----------
    tokens: all tokens, each beginning once.
    depths: the position of each token in its text.
    segments: stretches (first token, end, parent) that follow their parent, -1 for none, in order.
    texts: the numbers of the texts it holds, and where each one's tokens are, int64.
    """

    tokens: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    segments: list[tuple[int, int, int]] = field(default_factory=list)
    texts: list[tuple[int, np.ndarray]] = field(default_factory=list)

    @property
    def trunk(self) -> int:
        """How many tokens stand before the first fork: all of them see all before them."""
        forks = (parent + 1 for start, _, parent in self.segments if parent + 1 < start)
        return min(forks, default=len(self.tokens))

    @property
    def forks(self) -> bool:
        """Whether some token does not see all that stand before it."""
        return self.trunk < len(self.tokens)

    def add(self, number: int, text: np.ndarray, shared: int) -> None:
        """Add the text that has this number; its first `shared` tokens are those of the text before it."""
        before = self.texts[-1][1][:shared] if self.texts else np.empty(0, dtype=np.int64)
        start, new = len(self.tokens), text[shared:]
        if len(new):
            self.segments.append((start, start + len(new), int(before[-1]) if shared else -1))
        self.tokens += new.tolist()
        self.depths += range(shared, len(text))
        self.texts.append((number, np.concatenate([before, np.arange(start, len(self.tokens))])))

    def mask(self) -> np.ndarray:
        """Return (tokens, tokens) bool, true where the token of the row sees that of the column."""
        seen = np.zeros((len(self.tokens), len(self.tokens)), dtype=bool)
        for start, end, parent in self.segments:
            if parent >= 0:
                seen[start:end, :start] = seen[parent, :start]
            seen[start:end, start:end] = np.tri(end - start, dtype=bool)
        return seen


def merge(texts: Sequence[np.ndarray], width: int) -> list[Tree]:
    """Return trees that hold `texts` (token ids, none empty); which texts share one is decided by what it costs.

    Parameters
    ----------
    width: the model's, by which what a token costs and what a pair of tokens costs in attention are compared.
    """
    keys = [text.astype(">u4").tobytes() for text in texts]  # sorted as the ids are, one after the other
    trees: list[Tree] = []
    last = np.empty(0, dtype=np.int64)
    for number in sorted(range(len(texts)), key=keys.__getitem__):
        text = np.asarray(texts[number])
        shared = _shared(last, text)
        if not trees or not _pays(len(trees[-1].tokens), len(text), shared, width):
            trees.append(Tree())
            shared = 0
        trees[-1].add(number, text, shared)
        last = text
    return trees


def _shared(one: np.ndarray, other: np.ndarray) -> int:
    """Return how many tokens two texts have in common at their beginnings."""
    most = min(len(one), len(other))
    differs = np.flatnonzero(one[:most] != other[:most])
    return int(differs[0]) if len(differs) else most


def _pays(tree: int, text: int, shared: int, width: int) -> bool:
    """Return whether a text costs less in a tree of so many tokens than alone.

    A block takes about 24 D² operations a token, and 4 D a pair of tokens in attention, which run at half the speed.
    """
    grown = tree + text - shared
    return shared > 0 and grown <= LONGEST and 3 * width * shared > grown**2 - tree**2 - text**2
