"""The filters and the draw: what they keep, and that nothing else is ever drawn."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lucidlm.core.errors import InputError
from lucidlm.inference.sampler import (
    LIKELIEST,
    SamplingConfig,
    choose,
    draw,
    min_p,
    penalize_written,
    repetition_penalty,
    top_k,
    top_p,
)

PROBABILITIES = torch.tensor([[0.5, 0.25, 0.15, 0.07, 0.03]])
LOGITS = PROBABILITIES.log()


def kept(logits: Tensor) -> list[int]:
    return torch.isfinite(logits[0]).nonzero().flatten().tolist()


def test_top_k() -> None:
    assert [kept(top_k(LOGITS, k)) for k in (1, 3, 5)] == [[0], [0, 1, 2], [0, 1, 2, 3, 4]]
    assert kept(top_k(torch.tensor([[1.0, 3.0, 2.0]]), 2)) == [1, 2]


def test_top_p_keeps_the_fewest_that_reach_it() -> None:
    assert [kept(top_p(LOGITS, p)) for p in (0.01, 0.4, 0.6, 0.8, 0.95)] == [
        [0],
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 1, 2, 3],
    ]
    assert kept(top_p(LOGITS.flip(1), 0.6)) == [3, 4]


def test_min_p_is_relative_to_the_likeliest() -> None:
    assert [kept(min_p(LOGITS, p)) for p in (1.0, 0.4, 0.25, 0.1, 0.01)] == [
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 1, 2, 3],
        [0, 1, 2, 3, 4],
    ]


def test_repetition_penalty_lowers_what_was_seen() -> None:
    logits = torch.tensor([[2.0, -2.0, 2.0, -2.0]])
    seen = torch.tensor([[True, True, False, False]])
    assert repetition_penalty(logits, seen, 2.0).tolist() == [[1.0, -4.0, 2.0, -2.0]]


def test_penalties_count_what_was_written() -> None:
    logits = torch.zeros(5)
    penalize_written(logits, [3, 1, 3, 3], 0.5, 0.25)
    assert logits.tolist() == [0, -0.75, 0, -1.25, 0]
    penalize_written(logits, [], 2.0, 2.0)
    assert logits.tolist() == [0, -0.75, 0, -1.25, 0]


def test_filters_change_neither_their_input_nor_what_they_keep() -> None:
    before = LOGITS.clone()
    for filtered in (top_k(LOGITS, 2), top_p(LOGITS, 0.6), min_p(LOGITS, 0.4)):
        assert torch.equal(filtered[:, :2], LOGITS[:, :2])
        assert kept(filtered) == [0, 1]
    assert torch.equal(LOGITS, before)


def test_rows_are_filtered_each_by_itself() -> None:
    both = torch.cat((LOGITS, LOGITS.flip(1)))
    for filtered in (top_k(both, 2), top_p(both, 0.6), min_p(both, 0.4)):
        assert torch.isfinite(filtered).tolist() == [
            [True, True, False, False, False],
            [False, False, False, True, True],
        ]


def test_draws_follow_the_distribution() -> None:
    noise = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    counts = torch.bincount(draw(LOGITS.expand(len(noise), -1), noise), minlength=5)
    assert counts.tolist() == pytest.approx([50_000, 25_000, 15_000, 7_000, 3_000], abs=2)


def test_what_is_ruled_out_is_never_drawn() -> None:
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 1.0, -math.inf]])
    for noise in (0.0, 1e-300, 0.5, 1 - 2**-53):
        assert draw(logits, torch.tensor([noise], dtype=torch.float64)).item() in (1, 3)


def test_greedy_takes_the_likeliest_and_needs_no_noise() -> None:
    config = SamplingConfig(temperature=0)
    assert choose(LOGITS.flip(1), config, seen=None, noise=None).tolist() == [4]
    seen = torch.tensor([[True, False, False, False, False]])
    penal = config.changed(repetition_penalty=5.0)
    assert choose(LOGITS, penal, seen=seen, noise=None).tolist() == [1]


def test_temperature_sharpens_and_flattens() -> None:
    noise = torch.full((1,), 0.7, dtype=torch.float64)
    free: dict[str, Any] = {"min_p": 0}
    assert choose(LOGITS, SamplingConfig(temperature=0.1, **free), seen=None, noise=noise).tolist() == [0]
    assert choose(LOGITS, SamplingConfig(temperature=1.0, **free), seen=None, noise=noise).tolist() == [1]
    assert choose(LOGITS, SamplingConfig(temperature=100.0, **free), seen=None, noise=noise).tolist() == [3]


def test_every_filter_is_applied_when_asked_for() -> None:
    last = torch.full((1,), 1 - 2**-53, dtype=torch.float64)
    for fields, expected in (
        ({}, 4),
        ({"top_k": 2}, 1),
        ({"top_k": 99}, 4),
        ({"top_p": 0.8}, 2),
        ({"min_p": 0.1}, 3),
        ({"top_k": 4, "top_p": 0.95, "min_p": 0.4}, 1),
    ):
        config = SamplingConfig(**{"temperature": 1.0, "min_p": 0, **fields})
        assert choose(LOGITS, config, seen=None, noise=last).item() == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 0),
        ("top_p", 1.5),
        ("min_p", 2),
        ("repetition_penalty", 0),
        ("presence_penalty", 2.1),
        ("frequency_penalty", float("nan")),
        ("length", 0),
        ("stop", ("a", "")),
        ("topk", 3),
    ],
)
def test_wrong_settings_are_named(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=field):
        SamplingConfig(**{field: value})


def test_a_nucleus_of_any_size_is_found() -> None:
    """Flat distributions have larger ones than `LIKELIEST`, the others are found without sorting everything."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 2_000, generator=generator) * torch.tensor([[0.1], [1.0], [4.0], [20.0]])
    for rows in (logits, logits[:1], logits[2:]):
        filtered = top_p(rows, 0.9)
        for row, kept_row in zip(rows, filtered, strict=True):
            probabilities = row.double().softmax(-1).sort(descending=True).values
            size = int((probabilities.cumsum(-1) < 0.9).sum()) + 1
            assert torch.isfinite(kept_row).sum() == size
            assert torch.equal(kept_row.topk(size).values, row.topk(size).values)
    assert torch.isfinite(top_p(logits[:1], 0.9)).sum() > LIKELIEST > torch.isfinite(top_p(logits[2:], 0.9)).sum() / 2
