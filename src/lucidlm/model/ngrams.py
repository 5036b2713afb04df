"""A linear model over counted n-grams, and its place beside a Transformer (Cheng et al. 2016, arXiv:1606.07792).

Counted n-grams tell what a small Transformer has seen too little of, and the Transformer what no n-gram tells; the sum of
their logits is better than either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import CountVectorizer

NgramKind = Literal["words", "inside words", "characters"]
"""N-grams of words and signs, of the characters inside the words of short texts, or of all characters."""

ORDERS: dict[NgramKind, tuple[int, int]] = {"words": (1, 3), "inside words": (2, 5), "characters": (1, 4)}
"""The shortest and the longest n-grams of each kind."""

SHORT = 500
"""Characters of a text at most that has few words: only of such are those inside words counted. They tell stems there, and
no more than the words do in longer texts."""

_ANALYZERS = {"words": "word", "inside words": "char_wb", "characters": "char"}
_TOKEN = r"(?u)\w+(?:'\w+)?|[^\w\s]"


@dataclass(frozen=True)
class NgramTable:
    """N-grams of one kind and what they weigh.

    A text's feature of an n-gram that it has is the n-gram's `ratio`, and the features of a text are scaled to the length
    one, so that long texts say no more than short ones.

    Parameters
    ----------
    ngrams: (F,) those that are known, words joined by a space.
    ratio: (F, C) fp32, the log-count ratio of each n-gram and class.
    weight: (F, C) fp32, of the features.
    """

    kind: NgramKind
    ngrams: tuple[str, ...]
    ratio: np.ndarray
    weight: np.ndarray

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return what the n-grams add to each text's logits (B, C), float64."""
        found, ratio = self._counter.transform(texts), self.ratio.astype(np.float64)
        lengths = np.sqrt(found @ ratio**2)
        return (found @ (ratio * self.weight)) / np.where(lengths, lengths, 1.0)

    @cached_property
    def _counter(self) -> CountVectorizer:
        return ngram_counter(self.kind, vocabulary=self.ngrams)


@dataclass(frozen=True)
class NgramClassifier:
    """Logits of a text's labels: the sum of what its n-grams of each kind say.

    Parameters
    ----------
    tables: all of the same number of classes C: that of the labels, or 1 where there are two labels, which is the second.
    bias: (C,) fp32.
    """

    tables: tuple[NgramTable, ...]
    bias: np.ndarray

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Return the logits (B, labels), float64, of each text's labels."""
        logits = sum(
            (table.logits(texts) for table in self.tables), np.tile(self.bias.astype(np.float64), (len(texts), 1))
        )
        return np.hstack((np.zeros_like(logits), logits)) if len(self.bias) == 1 else logits


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

    def deep_part(self, both: np.ndarray, wide: np.ndarray) -> np.ndarray:
        """Return the Transformer's logits (B, L) in a sum of `both`, given the n-grams' own, `wide`."""
        return (both - self.wide_scale * wide) / self.deep_scale


def ngram_counter(kind: NgramKind, *, fewest: int = 1, vocabulary: Sequence[str] | None = None) -> CountVectorizer:
    """Return what finds the n-grams of texts: whether each is there, not how often.

    Parameters
    ----------
    fewest: in how many texts an n-gram occurs to be kept.
    vocabulary: the n-grams to find; None: all.
    """
    # Slow to import, and few models count n-grams.
    from sklearn.feature_extraction.text import CountVectorizer

    of_kind: dict[str, Any] = {}
    if kind == "words":
        of_kind = {"token_pattern": _TOKEN}
    elif kind == "inside words":
        of_kind = {"preprocessor": _lowered_if_short}
    return CountVectorizer(
        analyzer=_ANALYZERS[kind],
        ngram_range=ORDERS[kind],
        binary=True,
        min_df=fewest,
        vocabulary=vocabulary,
        dtype=np.float64,  # pyright: ignore[reportArgumentType]
        **of_kind,
    )


def _lowered_if_short(text: str) -> str:
    return text.lower() if len(text) <= SHORT else ""
