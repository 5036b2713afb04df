"""Baseline for extractive question answering: the sentence that shares most words with the question."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Self

from lucidlm.data.examples.records import Question, Span
from lucidlm.data.scripts import sentences, separates_no_words, words


class SentenceOverlap:
    """The sentence that shares the rarest terms with the question; the first of several.

    Terms are words, or pairs of adjacent characters where the script does not separate words. They weigh the more, the
    fewer contexts of the training data have them.
    """

    name = "sentence with the question's words"

    def fit(self, training: Sequence[Question]) -> Self:
        """Count in how many contexts each term occurs."""
        contexts = dict.fromkeys(example.context for example in training)
        self.contexts = len(contexts)
        self.counts = Counter(term for context in contexts for term in _terms(context))
        return self

    def predict(self, examples: Sequence[Question]) -> list[Span]:
        """Return a sentence of each context, and the weight of the terms that it shares."""
        return [self._answer(example) for example in examples]

    def _answer(self, example: Question) -> Span:
        asked = _terms(example.question)
        found = [
            Span(part, start, sum(map(self._weight, asked & _terms(part))))
            for start, end in sentences(example.context)
            if (part := example.context[start:end])
        ]
        return max(found, key=lambda span: span.score, default=Span("", 0))

    def _weight(self, term: str) -> float:
        return math.log((1 + self.contexts) / (1 + self.counts[term]))


def _terms(text: str) -> set[str]:
    found = words(text)
    return {first + second for first, second in pairwise(found)} if separates_no_words([text]) else set(found)
