"""Metrics of numbers that should rise and fall together: correlations, from sums over examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lucidlm.data.examples.records import NumberPrediction, ScoredPair
from lucidlm.metrics.statistics import Metric


def similarity_metrics() -> list[Metric]:
    """Return Pearson's correlation, and Spearman's, which is Pearson's of ranks, equal numbers sharing their mean rank.

    A constant prediction has no correlation with anything; it is given 0. Resampling for an interval keeps the ranks
    that all examples together have.
    """
    return [Metric("pearson", _moments, correlation), Metric("spearman", _rank_moments, correlation)]


def _moments(examples: Sequence[ScoredPair], predictions: Sequence[NumberPrediction]) -> np.ndarray:
    """Return (n, 6): 1, x, y, x², y² and xy, with both x and y standardised so that the sums stay exact."""
    x = _standardised(np.array([example.score for example in examples]))
    y = _standardised(np.array([prediction.value for prediction in predictions]))
    return np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1)


def _rank_moments(examples: Sequence[ScoredPair], predictions: Sequence[NumberPrediction]) -> np.ndarray:
    x, y = (ranks([one.score for one in examples]), ranks([one.value for one in predictions]))
    return _moments(
        [ScoredPair("", "", rank, "") for rank in x.tolist()], [NumberPrediction(rank) for rank in y.tolist()]
    )


def _standardised(values: np.ndarray) -> np.ndarray:
    spread = values.std()
    return (values - values.mean()) / spread if spread > 1e-12 * max(1.0, np.abs(values).max()) else 0 * values


def ranks(values: Sequence[float]) -> np.ndarray:
    """Return the rank of each value, float64 (n,), from 1; equal values have the mean of their ranks."""
    _, places, counts = np.unique(np.array(values, dtype=np.float64), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def correlation(sums: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation (...) of sums (..., 6); 0 where one side is constant."""
    n, x, y, xx, yy, xy = (sums[..., column] for column in range(6))
    spread = np.sqrt(np.maximum(n * xx - x * x, 0) * np.maximum(n * yy - y * y, 0))
    known = spread > 1e-9
    return np.where(known, (n * xy - x * y) / np.where(known, spread, 1), 0.0)
