"""llama.cpp's architectures that our Transformer supports: from their metadata to our configuration, and back.

Names of keys and tensors come from the `gguf` package; the optional ones are those of llama.cpp (src/llama-model.cpp).
"""

from __future__ import annotations

from typing import Any

import torch
from gguf import MODEL_TENSOR, TENSOR_NAMES, GGUFWriter, Keys, RopeScalingType
from torch import Tensor

from lucidlm.core.errors import InputError
from lucidlm.interop.gguf.header import Header
from lucidlm.interop.gguf.tensors import load_tensor, open_tensors
from lucidlm.model.config import ModelConfig, RopeScaling
from lucidlm.model.position import rotary_frequencies

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"qk_norm": False},
    "qwen2": {"qk_norm": False, "qkv_bias": True},
    "qwen3": {"qk_norm": True},
    "gpt2": {"qk_norm": False, "norm": "layer", "position": "learned", "activation": "gelu_tanh", "bias": True},
}
"""The fields in which each differs from `ModelConfig`'s defaults."""

ARRANGEMENT = ("causal", "norm", "position", "activation", "bias", "qkv_bias", "qk_norm", "post_norm", "token_types")
"""The fields that an architecture fixes; the others are numbers in the metadata."""

SCALE_LINEAR = "{arch}.rope.scale_linear"
"""An older key for the factor of linear position scaling, which the gguf package no longer has."""

ROPE_FACTORS = f"{TENSOR_NAMES[MODEL_TENSOR.ROPE_FREQS]}.weight"
"""A tensor that divides the rotary frequencies in Llama 3.1; the parameters it was computed from are not in the metadata."""


def architecture_of(config: ModelConfig) -> str:
    """Return llama.cpp's name for the architecture of `config`.

    Raises
    ------
    InputError: it does not support it.
    """
    default = {field: ModelConfig.model_fields[field].default for field in ARRANGEMENT}
    own = {field: getattr(config, field) for field in ARRANGEMENT}
    name = next((name for name, differences in ARCHITECTURES.items() if default | differences == own), None)
    if name is None:
        raise InputError(
            "llama.cpp runs no model of this arrangement",
            fix=f"Causal models in the arrangements of {', '.join(ARCHITECTURES)} can be exported to GGUF.",
        )
    if name in ("qwen2", "gpt2") and config.head_dim * config.num_heads != config.embedding_dim:
        raise InputError(f"llama.cpp's {name} needs heads that together are as wide as the embedding")
    if config.rope_scaling is not None and config.rope_scaling.kind == "llama3" and name != "llama":
        raise InputError(f"llama.cpp's {name} has no rotary positions scaled as Llama 3.1's")
    return name


def read_config(header: Header) -> tuple[str, ModelConfig]:
    """Return the architecture's name and our configuration from the metadata.

    Raises
    ------
    InputError: the architecture, or a feature of it, is not supported; a value is missing or invalid.
    """
    name = header.require(Keys.General.ARCHITECTURE, str)
    if name not in ARCHITECTURES:
        fix = f"Known are {', '.join(ARCHITECTURES)}."
        raise InputError(f"holds a model of the architecture {name!r}, which is not known", where=header.path, fix=fix)
    if header.get(Keys.Split.LLM_KV_SPLIT_COUNT, int, 1) > 1:
        fix = "Join the parts with llama.cpp's gguf-split first."
        raise InputError("is one of several files that are one model together", where=header.path, fix=fix)
    heads = header.require(Keys.Attention.HEAD_COUNT, int)
    context = header.require(Keys.LLM.CONTEXT_LENGTH, int)
    fields: dict[str, Any] = {
        **ARCHITECTURES[name],
        "vocab_size": len(header.require(Keys.Tokenizer.LIST, list)),
        "embedding_dim": header.require(Keys.LLM.EMBEDDING_LENGTH, int),
        "num_layers": header.require(Keys.LLM.BLOCK_COUNT, int),
        "num_heads": heads,
        "num_kv_heads": header.get(Keys.Attention.HEAD_COUNT_KV, int, heads),
        "ff_dim": header.require(Keys.LLM.FEED_FORWARD_LENGTH, int),
        # In a context no longer than the window, sliding-window attention is full attention, which is what we have.
        "context_length": min(context, header.get(Keys.Attention.SLIDING_WINDOW, int, 0) or context),
        "tied_embeddings": f"{TENSOR_NAMES[MODEL_TENSOR.OUTPUT]}.weight" not in header.tensors,
    }
    layer_norm = fields.get("norm") == "layer"
    epsilon = Keys.Attention.LAYERNORM_EPS if layer_norm else Keys.Attention.LAYERNORM_RMS_EPS
    fields["norm_eps"] = header.require(epsilon, float)
    if fields.get("position") != "learned":
        fields |= _read_rotary(header)
    config = ModelConfig.parse(fields, where=header.path)
    turned = header.get(Keys.Rope.DIMENSION_COUNT, int, config.head_dim)
    if config.position == "rotary" and turned != config.head_dim:
        raise InputError("turns a part of each head only, which is not supported", where=header.path)
    return name, config


def _read_rotary(header: Header) -> dict[str, Any]:
    kind = header.get(Keys.Rope.SCALING_TYPE, str, RopeScalingType.LINEAR.value)
    factor = header.get(Keys.Rope.SCALING_FACTOR, float, 0.0) or header.get(SCALE_LINEAR, float, 1.0)
    if kind not in (RopeScalingType.NONE.value, RopeScalingType.LINEAR.value):
        raise InputError(f"rotary positions scaled by {kind!r} are not supported", where=header.path)
    width = header.get(Keys.Attention.KEY_LENGTH, int)
    if width != header.get(Keys.Attention.VALUE_LENGTH, int, width):
        raise InputError("keys and values of different widths are not supported", where=header.path)
    scaled = kind == RopeScalingType.LINEAR.value and factor != 1
    return {
        "head_dim": width,
        "rope_theta": header.get(Keys.Rope.FREQ_BASE, float, 10_000.0),
        "rope_scaling": {"kind": "linear", "factor": factor} if scaled else None,
    }


def with_rope_factors(config: ModelConfig, header: Header) -> ModelConfig:
    """Return `config` with the rotary scaling that `ROPE_FACTORS` encode, if the file has them.

    Raises
    ------
    InputError: they have the wrong shape, or do not follow Llama 3.1's rule for any usual training context.
    """
    if (info := header.tensors.get(ROPE_FACTORS)) is None:
        return config
    if info.shape != (config.head_dim // 2,):
        raise InputError(f"{ROPE_FACTORS} has the shape {info.shape}, not {(config.head_dim // 2,)}", where=header.path)
    factors = load_tensor(open_tensors(header.path), info, slice(None))
    if bool((factors == 1).all()):
        return config
    for context in (8192, 4096, 16_384, 32_768):
        scaling = RopeScaling(kind="llama3", factor=max(float(factors.max()), 1.0), original_context=context)
        if torch.allclose(rope_factors(config.head_dim, config.rope_theta, scaling), factors, rtol=1e-4):
            return config.changed(rope_scaling=scaling)
    raise InputError("its rotary positions are scaled in a way of their own, which is not supported", where=header.path)


def rope_factors(head_dim: int, theta: float, scaling: RopeScaling) -> Tensor:
    """Return the values of `ROPE_FACTORS`, (d / 2,): the divisor of each rotary frequency."""
    return rotary_frequencies(head_dim, theta) / rotary_frequencies(head_dim, theta, scaling)


def write_config(writer: GGUFWriter, config: ModelConfig) -> None:
    """Add the model's configuration to the metadata; `read_config` reads it back."""
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.embedding_dim)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.ff_dim)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    (writer.add_layer_norm_rms_eps if config.norm == "rms" else writer.add_layer_norm_eps)(config.norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if config.position == "rotary":
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        writer.add_rope_dimension_count(config.head_dim)
        writer.add_rope_freq_base(config.rope_theta)
    if config.rope_scaling is not None and config.rope_scaling.kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_scaling.factor)
