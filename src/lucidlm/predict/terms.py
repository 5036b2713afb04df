"""Lexical overlap of a question and its context, for span readers.

A small model cannot learn from some hundred questions that equal words belong together, so the overlap is given to it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from lucidlm.data.scripts import separates_no_words, word_spans

STEM = 5
"""Letters of a word that are compared, so that inflected forms match."""

SHORTEST = 4
"""Fewest letters of a lower-case term: shorter words are mostly function words."""

Term = tuple[str, int, int]
"""A normalised term, with its first and end character."""


def terms(text: str) -> list[Term]:
    """Return the terms of a text: prefixes of words, and character bigrams in scripts without spaces between words."""
    return list(_terms(text))


def shared_terms(question: list[Term], context: list[Term], length: int) -> np.ndarray:
    """Return bool (length,): the characters of a context of `length` characters in terms that the question has too."""
    known = {term for term, _, _ in question}
    shared = np.zeros(length, dtype=bool)
    for term, start, end in context:
        if term in known:
            shared[start:end] = True
    return shared


def sentence_overlap(question: list[Term], context: list[Term], sentences: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return (sentences,) float64: the share of the question's terms that each sentence of a context has.

    Only terms that the context has count, one that n of its S sentences have with log(1 + S / n): what stands in all of
    them tells none from the others.
    """
    asked = {term for term, _, _ in question}
    starts, held = [start for start, _ in sentences], [set[str]() for _ in sentences]
    for term, start, _ in context:
        if term in asked:
            held[bisect_right(starts, start) - 1].add(term)
    weights = {term: math.log(1 + len(held) / n) for term, n in Counter(term for had in held for term in had).items()}
    shares = np.array([math.fsum(weights[term] for term in had) for had in held])
    return shares / (math.fsum(weights.values()) or 1.0)


def overlap_at(
    starts: np.ndarray, question: list[Term], context: list[Term], sentences: Sequence[tuple[int, int]]
) -> np.ndarray:
    """Return the overlap (n,) of the sentences that the characters `starts` (n,) lie in; 0 before all sentences."""
    shares = np.append(sentence_overlap(question, context, sentences), 0.0)
    return shares[np.searchsorted([start for start, _ in sentences], starts, side="right") - 1]


def _terms(text: str) -> Iterator[Term]:
    before: tuple[int, int] | None = None
    for start, end in word_spans(text):
        word = text[start:end]
        if separates_no_words([word]):
            if before is not None and before[1] == start:
                yield text[before[0] : end], before[0], end
            before = (start, end)
        elif len(word) >= SHORTEST or not word.islower():
            yield word.casefold()[:STEM], start, end
