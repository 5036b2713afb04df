"""Baselines for token tagging: no entity at all, and each word's most frequent tag."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Self

from lucidlm.data.examples.bio import OUTSIDE
from lucidlm.data.examples.records import TaggedSentence, Tags


class NoEntity:
    """Tags every word O: the share of words that are in no entity is often high."""

    name = "no entity"

    def fit(self, training: Sequence[TaggedSentence]) -> Self:
        """Learn nothing."""
        return self

    def predict(self, examples: Sequence[TaggedSentence]) -> list[Tags]:
        """Return O for each word."""
        return [Tags((OUTSIDE,) * len(example.tokens)) for example in examples]


class MostFrequentTag:
    """Gives each word the tag that it has most often in the training data, and O to words that are not there."""

    name = "most frequent tag of the word"

    def fit(self, training: Sequence[TaggedSentence]) -> Self:
        """Count each word's tags; of equally frequent ones the first in the data is taken."""
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for example in training:
            for token, tag in zip(example.tokens, example.tags, strict=True):
                counts[token][tag] += 1
        self.tags = {token: found.most_common(1)[0][0] for token, found in counts.items()}
        return self

    def predict(self, examples: Sequence[TaggedSentence]) -> list[Tags]:
        """Return a tag for each word, whatever its neighbours have."""
        return [Tags(tuple(self.tags.get(token, OUTSIDE) for token in example.tokens)) for example in examples]
