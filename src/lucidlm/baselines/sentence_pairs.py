"""Baseline for minimal pairs: the shorter sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from lucidlm.data.examples.records import MinimalPair, Preference


class ShorterSentence:
    """Prefers the sentence with fewer characters, as any sum of log-probabilities over tokens tends to."""

    name = "the shorter sentence"

    def fit(self, training: Sequence[MinimalPair]) -> Self:
        """Learn nothing."""
        return self

    def predict(self, examples: Sequence[MinimalPair]) -> list[Preference]:
        """Return the sentences' lengths for log-probabilities, negative."""
        return [Preference(-float(len(example.good)), -float(len(example.bad))) for example in examples]
