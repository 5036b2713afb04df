"""Baselines for translation: the source itself, and a word-by-word dictionary learned from the pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from nltk.translate import AlignedSent, IBMModel1

from lucidlm.data.examples.records import GeneratedText, Pair
from lucidlm.data.scripts import joined, tokens

ROUNDS = 5
"""Rounds of expectation maximisation; the likeliest translations hardly change after them."""
PAIRS = 30_000
"""Most pairs that the dictionary is learned from, evenly spaced: half a minute with short sentences."""
LONGEST = 100
"""Words of a side that are looked at."""


class Copy:
    """The source as it is: names and numbers are right."""

    name = "copy of the source"

    def fit(self, training: Sequence[Pair]) -> Self:
        """There is nothing to learn."""
        return self

    def predict(self, examples: Sequence[Pair]) -> list[GeneratedText]:
        """Return each source."""
        return [GeneratedText(example.source) for example in examples]


class Dictionary:
    """The likeliest word for each word, in the order of the source: IBM Model 1 (Brown et al. 1993).

    Each word of the target is explained by one of the source's or by none of them (an empty word); which one is learnt
    by expectation maximisation. Where a script does not separate words, its characters are taken for them. A word that
    was never seen stays as it is.
    """

    name = "dictionary (IBM Model 1)"

    def fit(self, training: Sequence[Pair]) -> Self:
        """Learn the probability of each target word given a source word: 34 s for 29,000 captions, on one core."""
        model = IBMModel1(
            [
                AlignedSent(tokens(example.target)[:LONGEST], tokens(example.source)[:LONGEST])
                for example in training[:: -(-len(training) // PAIRS)]
            ],
            ROUNDS,
        )
        likeliest: dict[str, tuple[float, str]] = {}
        for target, sources in model.translation_table.items():
            for source, probability in sources.items():
                if source is not None:  # the empty word
                    # Of equally likely words the last of the alphabet: their order here changes from run to run.
                    likeliest[source] = max(likeliest.get(source, (0.0, "")), (probability, target))
        self.best = {source: target for source, (_, target) in likeliest.items() if target}
        return self

    def predict(self, examples: Sequence[Pair]) -> list[GeneratedText]:
        """Return each source with its words replaced."""
        return [
            GeneratedText(joined([self.best.get(word, word) for word in tokens(example.source)]))
            for example in examples
        ]
