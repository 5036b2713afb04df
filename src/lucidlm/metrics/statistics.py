"""Figures with intervals, and tests of whether two models differ, the same for every metric.

A metric is a function of sums: each example contributes a row of statistics (hits, n-gram matches, a cell of the
confusion matrix …), and the metric is taken of the rows' sum. Means, F1, correlation, BLEU and perplexity all are of
this kind. So the bootstrap (Efron and Tibshirani 1993, chapter 13) is one matrix product of random weights and
statistics, and approximate randomisation (Noreen 1989; Riezler and Maxwell 2005) one of random signs and differences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel

from lucidlm.core.seeds import numpy_generator

RESAMPLES = 2000
CONFIDENCE = 0.95
AT_ONCE = 2**24
"""Random weights held at a time."""


class Estimate(BaseModel, frozen=True):
    """A figure and the interval its true value lies in with the stated confidence."""

    value: float
    low: float
    high: float
    confidence: float = CONFIDENCE


class Comparison(BaseModel, frozen=True):
    """How two models differ on the same examples.

    Parameters
    ----------
    difference: the first model's figure less the second's, with its paired bootstrap interval.
    p_value: how often chance alone, swapping the two models' answers, makes a difference as large.
    """

    difference: Estimate
    p_value: float

    @property
    def shown(self) -> bool:
        """Whether the data show a difference, at the confidence of the interval."""
        return self.p_value < 1 - self.difference.confidence


def ratio(sums: np.ndarray) -> np.ndarray:
    """Divide the first of two statistics by the second: a mean, if the second counts. (..., 2) to (...)."""
    return sums[..., 0] / np.maximum(sums[..., 1], 1e-12)


@dataclass(frozen=True)
class Metric:
    """A figure that models are judged by.

    Parameters
    ----------
    name: what eval.json and tables call it.
    statistics: what each example contributes, float64 (n, s), from examples and predictions, both of length n.
    value: the figure, (...), of summed statistics (..., s).
    percent: whether it is written in points from 0 to 100, as its field does (BLEU), rather than from 0 to 1.
    signature: how exactly it was computed, where the field has a way to say that (SacreBLEU's signature).
    """

    name: str
    statistics: Callable[[Sequence[Any], Sequence[Any]], np.ndarray]
    value: Callable[[np.ndarray], np.ndarray] = ratio
    higher_is_better: bool = True
    percent: bool = False
    signature: str = ""

    def __call__(self, examples: Sequence[Any], predictions: Sequence[Any]) -> float:
        """Return the figure for all examples together."""
        return float(self.value(self.statistics(examples, predictions).sum(0)))


def mean_of(name: str, score: Callable[[Any, Any], float], *, percent: bool = False, signature: str = "") -> Metric:
    """Return the metric that is the mean of `score(example, prediction)`."""

    def statistics(examples: Sequence[Any], predictions: Sequence[Any]) -> np.ndarray:
        pairs = zip(examples, predictions, strict=True)
        return np.array([(score(*pair), 1.0) for pair in pairs], dtype=np.float64).reshape(-1, 2)

    return Metric(name, statistics, percent=percent, signature=signature)


def estimate(
    value: Callable[[np.ndarray], np.ndarray],
    statistics: np.ndarray,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Return the figure of `statistics` (n, s) with its percentile bootstrap interval; the same seed gives the same."""
    draws = value(_resampled(statistics, resamples, seed))
    return _estimate(float(value(statistics.sum(0))), draws, confidence)


def standard_error(value: Callable[[np.ndarray], np.ndarray], statistics: np.ndarray, resamples: int = 200) -> float:
    """Return the bootstrap standard error of the figure of `statistics` (n, s), 0 where it has none."""
    error = float(value(_resampled(statistics, resamples, 0)).std())
    return error if np.isfinite(error) else 0.0


def compare(
    value: Callable[[np.ndarray], np.ndarray],
    first: np.ndarray,
    second: np.ndarray,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare two models by their statistics on the same examples, each (n, s).

    Examples that are hard for both cancel out, so the interval is as narrow as it should be. The p-value is that of
    approximate randomisation: (1 + swaps with a difference as large) / (1 + swaps).
    """
    width = first.shape[1]
    both = _resampled(np.hstack([first, second]), resamples, seed)
    observed = float(value(first.sum(0)) - value(second.sum(0)))
    difference = _estimate(observed, value(both[:, :width]) - value(both[:, width:]), confidence)
    generator, total = numpy_generator(seed, "randomisation"), first.sum(0) + second.sum(0)
    rows = max(1, AT_ONCE // max(1, len(first)))
    extreme = 0
    for start in range(0, resamples, rows):
        swaps = generator.integers(0, 2, (min(rows, resamples - start), len(first))).astype(np.float64)
        left = first.sum(0) + swaps @ (second - first)  # (r, s)
        extreme += int((np.abs(value(left) - value(total - left)) >= abs(observed) - 1e-12).sum())
    return Comparison(difference=difference, p_value=(1 + extreme) / (1 + resamples))


def _resampled(statistics: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return the sums (resamples, s) of as many draws, each of n rows with replacement."""
    examples = len(statistics)
    # Rows that are alike are drawn together: a right answer is like another, so there are often only a few kinds.
    kinds, counts = np.unique(statistics, axis=0, return_counts=True)
    generator = numpy_generator(seed, "bootstrap")
    rows = max(1, AT_ONCE // len(kinds))
    parts = []
    for start in range(0, resamples, rows):
        weights = generator.multinomial(examples, counts / examples, size=min(rows, resamples - start))
        parts.append(weights.astype(np.float64) @ kinds)
    return np.concatenate(parts)


def _estimate(value: float, draws: np.ndarray, confidence: float) -> Estimate:
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value=value, low=float(low), high=float(high), confidence=confidence)
