"""Metrics of classification, by hand and on made-up answers."""

from __future__ import annotations

import numpy as np
import pytest

from lucidlm.data.examples.records import ClassPrediction, LabelledText
from lucidlm.inference.held_out import bits_per_byte, perplexity
from lucidlm.metrics.label_metrics import accuracy, classification_metrics, macro_f1, matthews_correlation

LABELS = ("no", "yes")
METRICS = {
    metric.name: metric
    for metric in classification_metrics(lambda examples, labels: np.array([labels.index(e.label) for e in examples]))
}


def answers(rows: list[tuple[str, float]]) -> tuple[list[LabelledText], list[ClassPrediction]]:
    """Return examples and answers from true labels and probabilities of "no"."""
    examples = [LabelledText("a text", label, f"a.csv:{line}") for line, (label, _) in enumerate(rows, 1)]
    return examples, [ClassPrediction(LABELS, (p, 1 - p)) for _, p in rows]


def test_metrics_by_hand() -> None:
    found = answers([("no", 0.9), ("no", 0.8), ("no", 0.3), ("yes", 0.1), ("yes", 0.6)])
    assert METRICS["accuracy"](*found) == pytest.approx(3 / 5)
    assert METRICS["macro_f1"](*found) == pytest.approx((4 / 6 + 2 / 4) / 2)
    assert METRICS["mcc"](*found) == pytest.approx((2 * 1 - 1 * 1) / np.sqrt(3 * 3 * 2 * 2))


def test_a_class_that_nobody_meets_does_not_count() -> None:
    matrix = np.array([[5, 1, 0], [2, 4, 0], [0, 0, 0]])
    assert macro_f1(matrix) == pytest.approx(macro_f1(matrix[:2, :2]))


def test_a_constant_prediction_knows_nothing() -> None:
    matrix = np.array([[7, 0], [3, 0]])
    assert accuracy(matrix) == pytest.approx(0.7)
    assert matthews_correlation(matrix) == 0
    assert macro_f1(matrix) == pytest.approx((14 / 17) / 2)


def test_metrics_take_stacks_of_sums() -> None:
    stack = np.random.default_rng(0).integers(1, 9, (4, 5, 9)).astype(np.float64)
    for name in ("accuracy", "macro_f1", "mcc"):
        value = METRICS[name].value
        assert value(stack).shape == (4, 5)
        assert value(stack)[2, 3] == pytest.approx(float(value(stack[2, 3])))


def test_calibration_error_by_hand() -> None:
    # Ten say 0.9 and 0.8 are right; ten say 0.6 and 0.3 are right.
    sure = [("no", 0.9)] * 8 + [("yes", 0.9)] * 2
    unsure = [("yes", 0.4)] * 3 + [("no", 0.4)] * 7
    assert METRICS["calibration_error"](*answers(sure + unsure)) == pytest.approx((0.1 + 0.3) / 2)
    assert METRICS["calibration_error"](*answers([("no", 1.0)] * 4)) == 0


def test_language_model_metrics_by_hand() -> None:
    assert bits_per_byte(np.log(2) * 800, 100) == pytest.approx(8)
    assert perplexity(np.log(50) * 10, 10) == pytest.approx(50)
    assert perplexity(1e6, 10) == np.inf
