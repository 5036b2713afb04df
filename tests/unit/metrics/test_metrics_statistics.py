"""Intervals and tests of differences: against theory, and against the slow way to the same figures."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lucidlm.metrics.label_metrics import macro_f1
from lucidlm.metrics.statistics import compare, estimate, mean_of, ratio


def scores(values: np.ndarray) -> np.ndarray:
    return np.stack([values, np.ones(len(values))], axis=1).astype(np.float64)


def cells(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes * classes)[truth * classes + predicted]


def f1(sums: np.ndarray) -> np.ndarray:
    return macro_f1(sums.reshape(*sums.shape[:-1], 3, 3))


def test_the_interval_is_what_theory_says_and_the_same_for_the_same_seed() -> None:
    right = scores(np.arange(1000) < 800)
    found = estimate(ratio, right)
    half = 1.96 * math.sqrt(0.8 * 0.2 / 1000)
    assert found.value == 0.8
    assert [found.low, found.high] == pytest.approx([0.8 - half, 0.8 + half], abs=0.004)
    fine = scores(np.random.default_rng(0).random(100))
    assert estimate(ratio, fine) == estimate(ratio, fine)
    assert estimate(ratio, fine) != estimate(ratio, fine, seed=1)


def test_drawing_sums_is_drawing_examples() -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(3, size=300)
    predicted = np.where(generator.random(300) < 0.7, truth, generator.integers(3, size=300))
    statistics = cells(truth, predicted, 3)
    naive = [float(f1(statistics[generator.integers(300, size=300)].sum(0))) for _ in range(2000)]
    found = estimate(f1, statistics)
    assert [found.low, found.high] == pytest.approx(np.quantile(naive, [0.025, 0.975]), abs=0.008)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        found = estimate(ratio, scores(generator.random(200) < 0.75), resamples=500, seed=trial)
        covered += found.low <= 0.75 <= found.high
    assert 0.91 <= covered / 300 <= 0.98


def test_without_a_difference_p_values_are_uniform() -> None:
    generator = np.random.default_rng(0)
    p_values = []
    for trial in range(300):
        hard = generator.normal(0, 1, 80)
        first, second = (scores(hard + generator.normal(0, 1, 80)) for _ in range(2))
        p_values.append(compare(ratio, first, second, resamples=300, seed=trial).p_value)
    for share in (0.05, 0.25, 0.5, 0.75):
        spread = math.sqrt(share * (1 - share) / 300)
        assert np.mean(np.array(p_values) <= share) == pytest.approx(share, abs=3.5 * spread)


def test_a_difference_is_found_although_examples_are_of_unlike_difficulty() -> None:
    generator = np.random.default_rng(0)
    hard = generator.normal(0, 5, 400)
    first, second = scores(hard + 0.2 + generator.normal(0, 0.5, 400)), scores(hard + generator.normal(0, 0.5, 400))
    found = compare(ratio, first, second)
    assert found.shown
    assert found.difference.low < 0.2 < found.difference.high
    assert found.difference.high - found.difference.low == pytest.approx(2 * 1.96 * 0.5 * math.sqrt(2 / 400), rel=0.15)
    back = compare(ratio, second, first)
    assert back.difference.value == pytest.approx(-found.difference.value)


def test_a_model_does_not_differ_from_itself() -> None:
    same = scores(np.random.default_rng(0).random(50))
    found = compare(ratio, same, same)
    assert found.p_value == 1
    assert found.difference.low == found.difference.high == 0


def test_the_mean_of_a_score() -> None:
    metric = mean_of("half", lambda example, prediction: example * prediction)
    assert metric([1, 2, 3], [2, 2, 2]) == 4
    assert metric.statistics([1, 2], [3, 3]).tolist() == [[3, 1], [6, 1]]
