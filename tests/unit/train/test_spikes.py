"""A spike is told from noise, from learning, and from one hard text among easy ones."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pytest

from lucidlm.train.spikes import LEAST, RISE, WINDOW, SpikeDetector

STEPS = 2000
RANDOM = np.random.default_rng(0)
NOISE = RANDOM.standard_normal(STEPS)
TIME = np.arange(STEPS)

CALM = {
    "noisy": 3 + 0.1 * NOISE,
    "very noisy": 3 + 0.5 * NOISE,
    "still": np.full(STEPS, 3.0),
    "falling": 3 + 6 * np.exp(-TIME / 100) + 0.1 * NOISE,
    "rising slowly": 2 + TIME / 500 + 0.05 * NOISE,
    "warm-up: up a little, and down": 10 - 6 * TIME / STEPS + 0.5 * np.exp(-((TIME - 60) ** 2) / 800) + 0.1 * NOISE,
    "drifting": 3 + 0.3 * np.convolve(RANDOM.standard_normal(STEPS + 49), np.ones(50) / 50, "valid"),
    "all but learned, with a hard text now and then": 0.01 + 2 * (RANDOM.random(STEPS) < 0.05) / 16,
}


def begun(losses: np.ndarray, detector: SpikeDetector | None = None) -> list[int]:
    """Return the steps with which spikes begin."""
    detector = detector or SpikeDetector()
    return [step for step, loss in enumerate(losses.tolist()) if detector.begins(loss, 1.0)]


@pytest.mark.parametrize("curve", CALM)
def test_what_is_no_spike_is_passed_over(curve: str) -> None:
    assert begun(CALM[curve]) == []


@pytest.mark.parametrize("curve", CALM)
@pytest.mark.parametrize("lasts", [1, 5, 50])
def test_a_spike_is_found_where_it_begins_and_once(curve: str, lasts: int) -> None:
    losses = CALM[curve].copy()
    losses[1000 : 1000 + lasts] += 8
    assert begun(losses) == [1000]


def test_a_spike_hides_none_after_it() -> None:
    losses = CALM["noisy"].copy()
    losses[[1000, 1030, 1060]] += [50, 2, 2]
    assert begun(losses) == [1000, 1030, 1060]


def test_a_loss_that_stays_up_is_the_usual_one_soon() -> None:
    losses = CALM["noisy"].copy()
    losses[500:] += 2
    losses[1000] += 8
    assert begun(losses) == [500, 1000]


def test_a_run_has_no_past_at_first() -> None:
    losses = CALM["noisy"][: 2 * LEAST].copy()
    losses[[LEAST - 1, LEAST + 10]] += 8
    assert begun(losses) == [LEAST + 10]
    assert begun(np.array([9.0, 3.0, 9.0])) == []


def test_a_rise_has_to_be_one_that_matters() -> None:
    losses = np.full(WINDOW + 2, 1e-6)
    losses[-1] = RISE
    assert begun(losses) == []
    losses[-1] = RISE + 1e-4
    assert begun(losses) == [WINDOW + 1]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_a_spike_even_at_first_and_is_forgotten(value: float) -> None:
    detector = SpikeDetector()
    assert detector.begins(value, 1.0)
    assert detector.begins(3.0, value)
    assert detector == SpikeDetector()


def test_it_goes_on_from_where_it_was_saved() -> None:
    losses = CALM["noisy"].copy()
    losses[500:520] += 8
    first = SpikeDetector()
    assert begun(losses[:510], first) == [500]
    assert begun(losses[510:], SpikeDetector(**asdict(first))) == []


def test_it_says_what_happened() -> None:
    detector = SpikeDetector([3.0] * LEAST)
    assert detector.begins(9.25, 1.0)
    assert detector.describe(9.25, 1.0) == "the loss jumped from 3.0000 to 9.2500"
    assert detector.describe(9.25, math.inf) == "the loss (9.25) or its gradient's norm (inf) is not finite"
