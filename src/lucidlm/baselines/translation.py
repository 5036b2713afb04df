"""What a translation has to beat: the source as it is, and a dictionary learnt from the pairs, word for word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from lucidlm.data.examples import Pair, Written
from lucidlm.data.scripts import joined, tokens

ROUNDS = 5
"""Of expectation maximisation; what is likeliest hardly changes after them."""
PAIRS = 100_000
"""The dictionary is learnt from so many at most, evenly taken: memory grows with the words of both sides multiplied."""
LONGEST = 100
"""Words of a side that are looked at."""


class Copy:
    """The source as it is: names and numbers are right."""

    name = "copy of the source"

    def fit(self, training: Sequence[Pair]) -> Self:
        """There is nothing to learn."""
        return self

    def predict(self, examples: Sequence[Pair]) -> list[Written]:
        """Return each source."""
        return [Written(example.source) for example in examples]


class Dictionary:
    """The likeliest word for each word, in the order of the source: IBM Model 1 (Brown et al. 1993).

    Each word of the target is explained by one of the source's or by none of them (an empty word); which one is learnt
    by expectation maximisation. Where a script does not separate words, its characters are taken for them. A word that
    was never seen stays as it is.
    """

    name = "dictionary (IBM Model 1)"

    def fit(self, training: Sequence[Pair]) -> Self:
        """Learn the probability of each target word given a source word. 29,000 sentences take about ten seconds."""
        sources, targets = _Vocabulary(), _Vocabulary()
        sources.number("")  # the empty word
        left, right, slots, slot = [], [], [], 0
        for example in training[:: -(-len(training) // PAIRS)]:
            source = np.array([0, *map(sources.number, tokens(example.source)[:LONGEST])])
            target = np.array([targets.number(word) for word in tokens(example.target)[:LONGEST]], dtype=np.int64)
            left.append(np.tile(source, len(target)))
            right.append(np.repeat(target, len(source)))
            slots.append(np.repeat(np.arange(slot, slot + len(target)), len(source)))
            slot += len(target)
        # Every word that may explain one: `cells` are the word pairs that occur, `cell` says which each is.
        size = len(targets.words)
        cells, cell = np.unique(np.concatenate(left) * size + np.concatenate(right), return_inverse=True)
        place, source = np.concatenate(slots), cells // size
        probability = np.ones(len(cells))
        for _ in range(ROUNDS):
            share = probability[cell]
            share /= np.bincount(place, share)[place]
            counts = np.bincount(cell, share)
            probability = counts / np.bincount(source, counts)[source]
        best = np.lexsort((-probability, source))
        found, first = np.unique(source[best], return_index=True)
        words = (cells[best[first]] % size).tolist()
        self.best = {sources.words[s]: targets.words[t] for s, t in zip(found.tolist(), words, strict=True) if s}
        return self

    def predict(self, examples: Sequence[Pair]) -> list[Written]:
        """Return each source with its words replaced."""
        return [Written(joined([self.best.get(word, word) for word in tokens(example.source)])) for example in examples]


class _Vocabulary:
    """Words and their numbers, in the order they are met."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.numbers: dict[str, int] = {}

    def number(self, word: str) -> int:
        """Return the number of `word`, a new one if need be."""
        if (number := self.numbers.setdefault(word, len(self.words))) == len(self.words):
            self.words.append(word)
        return number
