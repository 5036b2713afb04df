"""Dropout: the share it zeroes, the mean it keeps, the gradient it lets through, and when it does nothing."""

from __future__ import annotations

import pytest
import torch

from lucidlm.model.dropout import Dropout


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_share_is_zero_and_the_mean_stays(share: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(300, 41, 7, dtype=dtype, requires_grad=True)  # no multiple of four
    y = Dropout(share)(x)
    assert y.dtype is dtype
    assert (y == 0).double().mean().item() == pytest.approx(share, abs=0.01)
    kept = y[y != 0]
    assert kept.unique().tolist() == pytest.approx([1 / (1 - share)], rel=1e-2)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())  # what was zeroed passes no gradient, the rest is scaled alike


def test_neighbours_fall_independently() -> None:
    torch.manual_seed(0)
    zero = Dropout(0.25)(torch.ones(200_000)) == 0
    for distance in (1, 2, 3, 4):
        both = (zero[:-distance] & zero[distance:]).double().mean().item()
        assert both == pytest.approx(0.0625, abs=0.005)


def test_a_seed_repeats_it() -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(7)
        drawn.append(Dropout(0.3)(torch.ones(1000)))
    assert torch.equal(*drawn)


def test_what_is_evaluated_or_drops_nothing_stays_as_it_is() -> None:
    x = torch.randn(5, 3)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert Dropout(0.5)(x[:0]).shape == (0, 3)
