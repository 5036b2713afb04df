"""Metrics against scikit-learn and hand computation; intervals against theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as reference

from lucidlm.evaluate.metrics import (
    METRICS,
    accuracy,
    confusion_matrix,
    estimate_mean,
    estimate_metric,
    expected_calibration_error,
    macro_f1,
    matthews_correlation,
)
from lucidlm.train.validation import bits_per_byte, perplexity


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("seed", range(5))
def test_metrics_agree_with_scikit_learn(classes: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth = generator.integers(classes, size=60)
    predicted = np.where(generator.random(60) < 0.6, truth, generator.integers(classes, size=60))
    matrix = confusion_matrix(truth, predicted, classes)
    assert (matrix == reference.confusion_matrix(truth, predicted, labels=range(classes))).all()
    assert accuracy(matrix) == pytest.approx(reference.accuracy_score(truth, predicted))
    assert macro_f1(matrix) == pytest.approx(reference.f1_score(truth, predicted, average="macro"))
    assert matthews_correlation(matrix) == pytest.approx(reference.matthews_corrcoef(truth, predicted))


def test_a_class_that_nobody_meets_does_not_count() -> None:
    matrix = np.array([[5, 1, 0], [2, 4, 0], [0, 0, 0]])
    assert macro_f1(matrix) == pytest.approx(macro_f1(matrix[:2, :2]))


def test_a_constant_prediction_knows_nothing() -> None:
    matrix = np.array([[7, 0], [3, 0]])
    assert accuracy(matrix) == pytest.approx(0.7)
    assert matthews_correlation(matrix) == 0
    assert macro_f1(matrix) == pytest.approx((14 / 17) / 2)


def test_metrics_take_stacks_of_matrices() -> None:
    stack = np.random.default_rng(0).integers(1, 9, (4, 5, 3, 3))
    for metric in METRICS.values():
        assert metric(stack).shape == (4, 5)
        assert metric(stack)[2, 3] == pytest.approx(float(metric(stack[2, 3])))


def test_the_interval_is_what_theory_says_and_the_same_for_the_same_seed() -> None:
    matrix = np.array([[400, 100], [100, 400]])
    found = estimate_metric(accuracy, matrix)
    half = 1.96 * math.sqrt(0.8 * 0.2 / 1000)
    assert found.value == 0.8
    assert found.low == pytest.approx(0.8 - half, abs=0.004)
    assert found.high == pytest.approx(0.8 + half, abs=0.004)
    assert found == estimate_metric(accuracy, matrix)
    assert found != estimate_metric(accuracy, matrix, seed=1)


def test_drawing_matrices_is_drawing_examples() -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(3, size=300)
    predicted = np.where(generator.random(300) < 0.7, truth, generator.integers(3, size=300))
    drawn = [generator.integers(300, size=300) for _ in range(2000)]
    scores = [float(macro_f1(confusion_matrix(truth[rows], predicted[rows], 3))) for rows in drawn]
    found = estimate_metric(macro_f1, confusion_matrix(truth, predicted, 3))
    assert [found.low, found.high] == pytest.approx(np.quantile(scores, [0.025, 0.975]), abs=0.006)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        right = generator.binomial(200, 0.75)
        found = estimate_metric(accuracy, np.array([[right, 200 - right], [0, 0]]), resamples=500, seed=trial)
        covered += found.low <= 0.75 <= found.high
    assert 0.91 <= covered / 300 <= 0.98


def test_the_mean_of_scores() -> None:
    few = estimate_mean(np.array([1, 0, -1, 0, 1, 1] * 50))
    many = estimate_mean(np.random.default_rng(0).normal(2, 1, 400))
    assert few.value == pytest.approx(1 / 3)
    assert few.high - few.low == pytest.approx(2 * 1.96 * np.std([1, 0, -1, 0, 1, 1]) / math.sqrt(300), rel=0.1)
    assert many.high - many.low == pytest.approx(2 * 1.96 / 20, rel=0.1)


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.4, 0.6]] * 10)
    truth = np.array([0] * 8 + [1] * 2 + [1] * 3 + [0] * 7)
    # Ten say 0.9 and 0.8 are right; ten say 0.6 and 0.3 are right.
    assert expected_calibration_error(probabilities, truth) == pytest.approx((0.1 + 0.3) / 2)
    assert expected_calibration_error(np.array([[1.0, 0.0]] * 4), np.zeros(4, dtype=int)) == 0


def test_language_model_metrics_by_hand() -> None:
    assert bits_per_byte(math.log(2) * 800, 100) == pytest.approx(8)
    assert perplexity(math.log(50) * 10, 10) == pytest.approx(50)
    assert perplexity(1e6, 10) == math.inf
