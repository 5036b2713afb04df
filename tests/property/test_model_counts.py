"""Counts of parameters and operations agree with the models themselves, whatever the configuration."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from lucidlm.model.config import ModelConfig
from lucidlm.model.flops import count_parameters, flops_per_token
from lucidlm.model.heads import LanguageModel


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    kv_heads = draw(st.integers(1, 3))
    heads = kv_heads * draw(st.integers(1, 3))
    return ModelConfig(
        vocab_size=draw(st.integers(2, 80)),
        embedding_dim=heads * 2 * draw(st.integers(1, 4)),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=draw(st.sampled_from([None, 4, 6])),
        ff_dim=draw(st.integers(1, 40)),
        num_layers=draw(st.integers(1, 3)),
        context_length=draw(st.integers(1, 30)),
        causal=draw(st.booleans()),
        norm=draw(st.sampled_from(["rms", "layer"])),
        position=draw(st.sampled_from(["rotary", "learned"])),
        activation=draw(st.sampled_from(["swiglu", "gelu", "relu2"])),
        bias=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        tied_embeddings=draw(st.booleans()),
    )


@settings(max_examples=100, deadline=None)
@given(configs())
def test_parameters(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = LanguageModel(config, seed=None)
    assert count_parameters(config) == sum(parameter.numel() for parameter in model.parameters())


@settings(max_examples=50, deadline=None)
@given(configs(), st.integers(1, 30))
def test_operations(config: ModelConfig, length: int) -> None:
    """Torch's counter knows no halves, so causal models are compared without theirs: as if each token saw all."""
    length = min(length, config.context_length)
    config = config.changed(causal=False)
    model = LanguageModel(config)
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(torch.zeros(1, length, dtype=torch.int64))
    assert flops_per_token(config, length, training=False) * length == counter.get_total_flops()
    causal = flops_per_token(config.changed(causal=True), length, training=False) * length
    attention = 4 * config.num_layers * config.num_heads * config.head_dim
    assert counter.get_total_flops() - causal == attention * length * (length - 1) // 2
    assert flops_per_token(config, length) == 3 * flops_per_token(config, length, training=False)
