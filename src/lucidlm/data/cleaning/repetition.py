"""Whether a text is too repetitive for training: menus, logs, spam, a page that says one thing a hundred times.

The measures and limits are those of Rae et al. 2021 ("Scaling Language Models: Methods, Analysis & Insights from
Training Gopher", table A1; a finer form of C4's rule on repeated sentences, Raffel et al. 2020), with these choices:
shares are of units, not of characters; of the n-gram sizes the paper lists, 2, 4 and 10 words stand for all; where a
script sets no spaces a word is taken to be two characters. Texts of fewer than `SHORTEST` words pass: chance rules there.
"""

from __future__ import annotations

import numpy as np

from lucidlm.data.scripts import is_unspaced

SHORTEST = 100
"""Words."""
DUPLICATE_LINES = 0.20
"""Largest share of characters in lines that stand earlier in the text."""
TOP_NGRAM = {2: 0.20, 4: 0.16}
"""Largest share of the text that the commonest n-gram takes up, by its length in words."""
DUPLICATE_NGRAMS = (10, 0.10)
"""A length in words, and the largest share of n-grams of that length that stand earlier in the text."""

_MULTIPLIER = np.int64(6364136223846793005)  # of Knuth's MMIX generator: mixes well modulo 2**64


def is_repetitive(text: str) -> bool:
    """Return whether `text` repeats lines or n-grams beyond the limits above."""
    if len(text) < SHORTEST:
        return False
    if is_unspaced(text):
        units, size = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32).astype(np.int64), 2
    else:
        words = text.split()
        units, size = np.fromiter(map(hash, words), np.int64, len(words)), 1
    if len(units) < SHORTEST * size:
        return False
    lines = text.split("\n")
    if len(lines) > 2 and sum(map(len, lines)) - sum(map(len, set(lines))) > DUPLICATE_LINES * len(text):
        return True
    known, grams = {1: units}, units
    for n, limit in TOP_NGRAM.items():
        grams = np.sort(_ngrams(known, n * size))
        most = int(limit * len(units)) // (n * size)  # times that an n-gram may be met
        if (grams[most:] == grams[:-most]).any():
            return True
    n, limit = DUPLICATE_NGRAMS
    most = limit * (len(units) - n * size + 1)
    if _repeats(grams) <= most:  # a long n-gram that is met again begins with a short one that is
        return False
    return _repeats(np.sort(_ngrams(known, n * size))) > most


def _repeats(grams: np.ndarray) -> int:
    """Return how many of the sorted n-grams stand earlier in the text."""
    return int(np.count_nonzero(grams[1:] == grams[:-1]))


def _ngrams(known: dict[int, np.ndarray], n: int) -> np.ndarray:
    """Return a hash of each run of `n` units, (N - n + 1,) int64, from runs of half the length; `known` are those by n."""
    if n not in known:
        half, rest = _ngrams(known, n // 2), _ngrams(known, n - n // 2)
        count = len(known[1]) - n + 1
        known[n] = half[:count] * _MULTIPLIER ^ rest[n // 2 : n // 2 + count] * np.int64(2 * n + 1)
    return known[n]
