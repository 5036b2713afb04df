"""Where a context says what its question says: the characters of the terms that both have.

A small model has no hope of learning from some hundred questions that equal words belong together, so a reader is told.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lucidlm.data.scripts import separates_no_words, word_spans

STEM = 5
"""Letters that words are told apart by, so that endings make no difference."""

SHORTEST = 4
"""Letters of a term, if they are all small: shorter words are function words more often than not."""

Term = tuple[str, int, int]
"""A term in the form that is compared, and where it begins and ends."""


def terms(text: str) -> list[Term]:
    """Return the terms of a text: the stems of words, and pairs of characters where the script separates no words."""
    return list(_terms(text))


def shared_terms(asked: list[Term], told: list[Term], length: int) -> np.ndarray:
    """Return which of the `length` characters of a context with the terms `told` belong to terms `asked` too, bool."""
    known = {term for term, _, _ in asked}
    shared = np.zeros(length, dtype=bool)
    for term, start, end in told:
        if term in known:
            shared[start:end] = True
    return shared


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
