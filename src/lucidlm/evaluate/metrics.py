"""What a model is judged by, each figure with the interval that chance leaves it.

Accuracy, macro-F1 and Matthews' correlation are functions of the confusion matrix alone. Drawing n examples with
replacement from n examples, which is what the bootstrap does, draws their confusion matrix from a multinomial
distribution; so we draw thousands of matrices directly and take the metric of all of them in one numpy expression.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pydantic import BaseModel

from lucidlm.core.seeds import numpy_generator

RESAMPLES = 2000
CONFIDENCE = 0.95


class Estimate(BaseModel, frozen=True):
    """A figure and the interval its true value lies in with the stated confidence."""

    value: float
    low: float
    high: float
    confidence: float = CONFIDENCE


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count how often the true class i, int (n,), was predicted as j, int (n,). Returns int64 (classes, classes)."""
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def accuracy(matrices: np.ndarray) -> np.ndarray:
    """Share of examples predicted correctly, from confusion matrices (..., k, k). Returns float (...)."""
    return np.trace(matrices, axis1=-2, axis2=-1) / matrices.sum((-2, -1))


def macro_f1(matrices: np.ndarray) -> np.ndarray:
    """F1 averaged over the classes that occur among truths or predictions, from (..., k, k). Returns float (...)."""
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)  # (..., k)
    involved = matrices.sum(-1) + matrices.sum(-2)  # (..., k)
    return (2 * hits / np.maximum(involved, 1)).sum(-1) / (involved > 0).sum(-1)


def matthews_correlation(matrices: np.ndarray) -> np.ndarray:
    """Matthews' correlation coefficient, generalised to k classes by Gorodkin (2004), from (..., k, k).

    It is 0 for predictions that know nothing (a constant one included) and 1 for perfect ones. Returns float (...).
    """
    matrices = matrices.astype(np.float64)
    total, hits = matrices.sum((-2, -1)), np.trace(matrices, axis1=-2, axis2=-1)
    actual, predicted = matrices.sum(-1), matrices.sum(-2)  # (..., k)
    covariance = hits * total - (actual * predicted).sum(-1)
    spread = np.sqrt((total**2 - (actual**2).sum(-1)) * (total**2 - (predicted**2).sum(-1)))
    return np.where(spread > 0, covariance / np.where(spread > 0, spread, 1), 0.0)


METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "mcc": matthews_correlation,
}
"""The metrics of a classifier, by the names they carry in eval.json."""


def estimate_metric(
    metric: Callable[[np.ndarray], np.ndarray],
    matrix: np.ndarray,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Take `metric` of a confusion matrix (k, k), with its percentile bootstrap interval.

    Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13. The same seed gives the same interval.
    """
    total = int(matrix.sum())
    generator = numpy_generator(seed, "bootstrap")
    draws = generator.multinomial(total, matrix.ravel() / total, size=resamples).reshape(resamples, *matrix.shape)
    return _estimate(float(metric(matrix)), metric(draws), confidence)


def estimate_mean(
    scores: np.ndarray, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Take the mean of per-example scores (n,), with its percentile bootstrap interval (see `estimate_metric`).

    For the difference between two models on the same examples, pass the differences of their scores: examples that
    are hard for both then cancel out, and the interval is as narrow as it should be.
    """
    values, counts = np.unique(scores, return_counts=True)
    generator = numpy_generator(seed, "bootstrap")
    if len(values) <= 16:  # few different scores (right or wrong): one draw of their counts stands for n draws
        draws = generator.multinomial(len(scores), counts / len(scores), size=resamples) @ values / len(scores)
    else:
        draws = np.array([generator.choice(scores, len(scores)).mean() for _ in range(resamples)])
    return _estimate(float(np.mean(scores)), draws, confidence)


def _estimate(value: float, draws: np.ndarray, confidence: float) -> Estimate:
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value=value, low=float(low), high=float(high), confidence=confidence)


def expected_calibration_error(probabilities: np.ndarray, truth: np.ndarray, bins: int = 15) -> float:
    """Return how far stated confidence lies from accuracy: Guo et al. (2017), over equal-width bins of confidence.

    Takes `probabilities` (n, k) and `truth` int (n,). It gets no bootstrap interval: resampling adds noise to every
    bin, and noise adds to this error, so the interval would lie above the truth.
    """
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == truth
    cell = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(cell, confidence - correct, minlength=bins)
    return float(np.abs(gap).sum() / len(truth))
