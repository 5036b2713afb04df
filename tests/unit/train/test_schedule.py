"""The learning rate over a run."""

from __future__ import annotations

import pytest

from lucidlm.core.errors import InputError
from lucidlm.train.schedule import ScheduleConfig, rate


def test_a_trapezoid_rises_stays_and_falls() -> None:
    config = ScheduleConfig(warmup=0.1, decay=0.4)
    assert rate(config, 0.0) == 0
    assert rate(config, 0.05) == pytest.approx(0.5)
    assert rate(config, 0.1) == rate(config, 0.3) == rate(config, 0.6) == 1
    assert rate(config, 0.8) == pytest.approx(0.5)
    assert rate(config, 1.0) == 0


def test_half_a_cosine() -> None:
    config = ScheduleConfig(name="cosine", warmup=0.2)
    assert rate(config, 0.1) == pytest.approx(0.5)
    assert rate(config, 0.2) == pytest.approx(1)
    assert rate(config, 0.6) == pytest.approx(0.5)
    assert rate(config, 1.0) == pytest.approx(0)


@pytest.mark.parametrize("name", ["trapezoid", "cosine"])
def test_the_floor_is_where_it_ends(name: str) -> None:
    config = ScheduleConfig(name=name, floor=0.1)
    assert rate(config, 1.0) == pytest.approx(0.1)
    assert rate(config, 0.3) <= 1


@pytest.mark.parametrize("name", ["trapezoid", "cosine"])
@pytest.mark.parametrize(("warmup", "decay"), [(0.0, 0.5), (0.0, 0.0), (1.0, 0.0), (0.5, 1.0), (0.3, 0.9)])
def test_it_is_a_share_that_never_jumps_up(name: str, warmup: float, decay: float) -> None:
    config = ScheduleConfig(name=name, warmup=warmup, decay=decay)
    rates = [rate(config, step / 1000) for step in range(1001)]
    assert all(0 <= factor <= 1 for factor in rates)
    peak = rates.index(max(rates))
    assert all(a >= b for a, b in zip(rates[peak:], rates[peak + 1 :], strict=False))


def test_without_warm_up_it_starts_at_the_peak() -> None:
    assert rate(ScheduleConfig(warmup=0), 0.0) == 1


@pytest.mark.parametrize("field", [{"warmup": 1.5}, {"decay": -0.1}, {"floor": 2}, {"name": "triangle"}])
def test_impossible_schedules_are_refused(field: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(field))):
        ScheduleConfig(**field)
