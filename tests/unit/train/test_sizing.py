"""One dial sets a model's size, and the machine and the time set the dial."""

from __future__ import annotations

import pytest
import torch

from lucidlm.core.devices import Compute
from lucidlm.core.errors import InputError
from lucidlm.model.flops import count_parameters, flops_per_token
from lucidlm.train.pretrain import sizing
from lucidlm.train.pretrain.sizing import choose_depth, matmul_flops, model_of_depth


def test_depth_sets_all_sizes() -> None:
    config = model_of_depth(6, 8192, 256)
    assert (config.num_layers, config.embedding_dim, config.num_heads, config.ff_dim) == (6, 384, 6, 1024)
    assert (config.vocab_size, config.context_length, config.causal) == (8192, 256, True)
    assert not model_of_depth(6, 8192, 256, masked=True).causal


@pytest.mark.parametrize(("depth", "millions"), [(2, 0.4), (6, 10.6), (12, 85)])
def test_blocks_hold_what_the_docstring_says(depth: int, millions: float) -> None:
    config = model_of_depth(depth, 1000, 128)
    assert (count_parameters(config) - 1000 * config.embedding_dim) / 1e6 == pytest.approx(millions, rel=0.1)


@pytest.mark.parametrize("width", [16, 100, 192, 320])
def test_any_even_width_makes_a_model(width: int) -> None:
    config = model_of_depth(3, 100, 64, width=width)
    assert config.embedding_dim == width
    assert config.ff_dim % 64 == 0


def test_a_width_that_heads_cannot_share_says_which_could() -> None:
    with pytest.raises(InputError, match=r"200\) is not divisible by num_heads \(3\).*198.*201"):
        model_of_depth(3, 100, 64, width=200)


def test_more_time_or_a_faster_machine_trains_a_deeper_model(cpu: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(speed: float, minutes: float) -> int:
        monkeypatch.setattr(sizing, "matmul_flops", lambda compute: speed)
        return choose_depth(minutes, 8192, cpu)

    depths = [chosen(1e11, minutes) for minutes in (0.01, 1, 10, 100, 1000)]
    assert depths == sorted(depths)
    assert depths[0] == 2
    assert depths[-1] > depths[1]
    assert chosen(1e15, 600) > chosen(1e11, 600)
    assert chosen(1e30, 600) == sizing.DEEPEST


def test_the_chosen_depth_can_be_trained_in_time(cpu: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "matmul_flops", lambda compute: 1.5e11)
    depth = choose_depth(30, 8192, cpu)

    def seconds(depth: int) -> float:
        config = model_of_depth(depth, 8192, 256)
        weights = count_parameters(config) - 8192 * config.embedding_dim
        return 20 * weights * flops_per_token(config, 256) / (0.6 * 1.5e11)

    assert seconds(depth) <= 30 * 60 * 1.01 < seconds(depth + 1) * 1.02


def test_without_a_time_the_default(cpu: Compute) -> None:
    assert choose_depth(None, 8192, cpu) == sizing.DEFAULT_DEPTH


def test_the_measured_speed_is_one(cpu: Compute) -> None:
    assert 1e7 < matmul_flops(cpu, size=64, repeats=2) < 1e16
    half = Compute(torch.device("cpu"), torch.bfloat16, "")
    assert matmul_flops(half, size=16, repeats=1) > 0
