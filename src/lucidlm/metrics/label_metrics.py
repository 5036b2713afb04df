"""Metrics of classification: accuracy, macro-F1, Matthews' correlation and calibration, all from sums over examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lucidlm.data.examples.records import ClassPrediction, LabelledText
from lucidlm.metrics.statistics import Estimate, Metric, estimate

BINS = 15
"""Bins of confidence that calibration is measured in."""

Truth = Callable[[Sequence[LabelledText], Sequence[str]], np.ndarray]
"""Gives the place of each example's label among label names, int (n,)."""


def classification_metrics(truth: Truth) -> list[Metric]:
    """Return the metrics of a classifier, accuracy first."""

    def cells(examples: Sequence[LabelledText], predictions: Sequence[ClassPrediction]) -> np.ndarray:
        return confusion_cells(truth(examples, predictions[0].labels), predictions)

    def confidences(examples: Sequence[LabelledText], predictions: Sequence[ClassPrediction]) -> np.ndarray:
        return _confidences(truth(examples, predictions[0].labels), predictions)

    return [
        Metric("accuracy", cells, lambda sums: accuracy(_matrices(sums))),
        Metric("macro_f1", cells, lambda sums: macro_f1(_matrices(sums))),
        Metric("mcc", cells, lambda sums: matthews_correlation(_matrices(sums))),
        Metric("calibration_error", confidences, calibration_error, higher_is_better=False),
    ]


def positive_f1(truth: Truth, positive: str) -> Metric:
    """Return the F1 of one label, as GLUE has it for paraphrases (Wang et al. 2018, arXiv:1804.07461)."""

    def counts(examples: Sequence[LabelledText], predictions: Sequence[ClassPrediction]) -> np.ndarray:
        labels = predictions[0].labels
        place = labels.index(positive) if positive in labels else -1
        right = truth(examples, labels) == place
        chosen = np.array([prediction.label == positive for prediction in predictions])
        return np.stack([right & chosen, right.astype(np.float64) + chosen], axis=1)

    return Metric("f1", counts, lambda sums: 2 * sums[..., 0] / np.maximum(sums[..., 1], 1))


def confusion_cells(truth: np.ndarray, predictions: Sequence[ClassPrediction]) -> np.ndarray:
    """Return (n, k * k), for each example a 1 in the cell (true class, predicted class) of the confusion matrix."""
    classes = len(predictions[0].labels)
    predicted = np.array([prediction.probabilities for prediction in predictions]).argmax(1)
    cells = np.zeros((len(predictions), classes * classes))
    cells[np.arange(len(predictions)), truth * classes + predicted] = 1
    return cells


def _matrices(sums: np.ndarray) -> np.ndarray:
    """Return sums (..., k * k) as matrices (..., k, k)."""
    classes = round(sums.shape[-1] ** 0.5)
    return sums.reshape(*sums.shape[:-1], classes, classes)


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


def _confidences(truth: np.ndarray, predictions: Sequence[ClassPrediction]) -> np.ndarray:
    """Return (n, BINS + 1): confidence less correctness in the column of the confidence's bin, and a 1 in the last."""
    probabilities = np.array([prediction.probabilities for prediction in predictions])  # (n, k)
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == truth
    gaps = np.zeros((len(truth), BINS + 1))
    gaps[np.arange(len(truth)), _bins(confidence)] = confidence - correct
    gaps[:, -1] = 1
    return gaps


def calibration_error(sums: np.ndarray) -> np.ndarray:
    """How far stated confidence lies from accuracy, over equal bins of confidence (Guo et al. 2017, arXiv:1706.04599).

    From sums (..., BINS + 1). Resampling adds noise to every bin, and noise adds to this error: its bootstrap interval
    lies somewhat high.
    """
    return np.abs(sums[..., :-1]).sum(-1) / np.maximum(sums[..., -1], 1)


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram (DeGroot & Fienberg 1983; Guo et al. 2017, arXiv:1706.04599).

    Parameters
    ----------
    bins: for each bin of confidence that is not empty: the mean confidence in it, the accuracy, and how many.
    error: the expected calibration error, with its bootstrap interval.
    """

    bins: tuple[tuple[float, float, int], ...]
    error: Estimate

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        bins = [dict(zip(("confidence", "accuracy", "count"), found, strict=True)) for found in self.bins]
        return {"bins": bins, "error": self.error.model_dump()}


def reliability(truth: np.ndarray, predictions: Sequence[ClassPrediction]) -> Reliability:
    """Return how confidence relates to accuracy, given the place (n,) of each example's label."""
    gaps = _confidences(truth, predictions)
    probabilities = np.array([prediction.probabilities for prediction in predictions])
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == truth
    places = _bins(confidence)
    bins = []
    for place in np.unique(places):
        within = places == place
        bins.append((float(confidence[within].mean()), float(correct[within].mean()), int(within.sum())))
    return Reliability(tuple(bins), estimate(calibration_error, gaps))


def _bins(confidence: np.ndarray) -> np.ndarray:
    """Return the bin (n,) of each confidence (n,)."""
    return np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
