"""The scaling law: the curve that made the losses is found again, and held-out runs are where it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lucidlm
from lucidlm.checkpoint.load import load_model
from lucidlm.core.errors import InputError
from lucidlm.model.flops import flops_per_token
from lucidlm.plan.scaling import ScalingLaw, budget_and_loss

BUDGETS = [1e12, 3e12, 1e13, 3e13, 1e14]


def loss(budget: float) -> float:
    return 1.7 + 40 * budget**-0.1


def test_the_curve_that_made_the_losses_is_found() -> None:
    law = ScalingLaw(BUDGETS, [loss(budget) for budget in BUDGETS])
    assert law.power == pytest.approx(0.1, abs=0.006)
    assert law.floor == pytest.approx(1.7, abs=0.1)
    found = law.predict(1e16)
    assert found.loss == pytest.approx(loss(1e16), rel=0.01)
    assert "loss = " in repr(law)


def test_the_interval_holds_larger_runs_mostly() -> None:
    held, widths = 0, []
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0, 0.01, len(BUDGETS))
        found = ScalingLaw(BUDGETS, [loss(x) + e for x, e in zip(BUDGETS, noise, strict=True)]).predict(5e14)
        held += found.low <= loss(5e14) <= found.high
        widths.append(found.high - found.low)
    assert held >= 14
    assert max(widths) < 0.3, "and says something"


def test_further_away_is_less_certain() -> None:
    noise = np.random.default_rng(1).normal(0, 0.01, len(BUDGETS))
    law = ScalingLaw(BUDGETS, [loss(x) + e for x, e in zip(BUDGETS, noise, strict=True)])
    near, far = law.predict(2e14), law.predict(1e17)
    assert far.high - far.low > near.high - near.low
    assert law.predict(2e14) == near, "the same seed gives the same interval"


@pytest.mark.parametrize(
    ("budgets", "losses", "message"),
    [
        ([1, 2, 3], [3, 2, 1], "too few"),
        ([1, 1, 1, 2, 2], [3, 3, 3, 2, 2], "too few"),
        ([1, 2, 3, 4], [3, 2, 1], "do not belong together"),
        ([1, 2, 3, 0], [4, 3, 2, 1], "positive"),
        ([1, 2, 3, 4], [4, 3, float("nan"), 1], "positive"),
    ],
)
def test_what_is_no_series_of_runs_is_refused(budgets: list[float], losses: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ScalingLaw(budgets, losses)


def test_runs_are_read_by_their_directories(tiny_model: Path, tmp_path: Path) -> None:
    flops, reached = budget_and_loss(tiny_model)
    assert flops == 12 * 4 * 64 * flops_per_token(load_model(tiny_model).model.config, 64)
    assert 0 < reached < 10
    with pytest.raises(InputError, match="too few"):
        lucidlm.plan.scaling_law([tiny_model] * 4)
    with pytest.raises(InputError, match="too few"):
        lucidlm.plan.scaling_law([])
    with pytest.raises(InputError):
        lucidlm.plan.scaling_law([tmp_path])


def test_a_budget_is_positive() -> None:
    law = ScalingLaw(BUDGETS, [loss(budget) for budget in BUDGETS])
    with pytest.raises(InputError, match="no budget"):
        law.predict(-1)
