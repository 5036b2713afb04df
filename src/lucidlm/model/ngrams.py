"""A linear model over counted n-grams, and its place beside a Transformer (Cheng et al. 2016, arXiv:1606.07792).

Counted n-grams tell what a small Transformer has seen too little of, and the Transformer what no n-gram tells; the sum of
their logits is better than either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import CountVectorizer

WORD_ORDER, CHARACTER_ORDER = 2, 4
"""The longest n-grams: words in scripts that separate them, else characters."""


@dataclass(frozen=True)
class NgramClassifier:
    """Logits of a text's labels: the sum of the weights of the n-grams that it has.

    Parameters
    ----------
    by_character: n-grams are of characters, not of words.
    ngrams: (F,) the known n-grams, words joined by a space.
    weight: (F, L) fp32, for each n-gram and label.
    bias: (L,) fp32.
    """

    by_character: bool
    ngrams: tuple[str, ...]
    weight: np.ndarray
    bias: np.ndarray

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return the logits (B, L), float64, of each text's labels."""
        return self._counter.transform(texts) @ self.weight.astype(np.float64) + self.bias

    @cached_property
    def _counter(self) -> CountVectorizer:
        return ngram_counter(self.by_character, vocabulary=self.ngrams)


@dataclass(frozen=True)
class WideBranch:
    """Counted n-grams beside a Transformer: a text's logits are a sum of both, each with a weight of its own.

    Parameters
    ----------
    ngrams: knows the same labels as the Transformer, in the same order.
    deep_scale, wide_scale: the weights of the Transformer's logits and of the n-grams'.
    """

    ngrams: NgramClassifier
    deep_scale: float = 1.0
    wide_scale: float = 1.0

    def add(self, deep: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """Return the logits (B, L) of `texts`, given the Transformer's, `deep` (B, L)."""
        return self.deep_scale * deep + self.wide_scale * self.ngrams.logits(texts)


def ngram_counter(by_character: bool, *, fewest: int = 1, vocabulary: Sequence[str] | None = None) -> CountVectorizer:
    """Return what finds the n-grams of texts: whether each is there, not how often.

    Parameters
    ----------
    fewest: in how many texts an n-gram occurs to be kept.
    vocabulary: the n-grams to find; None: all.
    """
    # Slow to import, and few models count n-grams.
    from sklearn.feature_extraction.text import CountVectorizer

    return CountVectorizer(
        analyzer="char" if by_character else "word",
        ngram_range=(1, CHARACTER_ORDER if by_character else WORD_ORDER),
        binary=True,
        min_df=fewest,
        vocabulary=vocabulary,
        dtype=np.float64,  # pyright: ignore[reportArgumentType]
    )
