"""The architectures of llama.cpp that our Transformer covers: their metadata and our configuration, both ways.

The keys are those of ggml's docs/gguf.md; what is and is not optional is as llama.cpp has it (src/llama-model.cpp).
"""

from __future__ import annotations

from typing import Any

import torch
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
"""How each differs from `ModelConfig`'s defaults."""

ARRANGEMENT = ("causal", "norm", "position", "activation", "bias", "qkv_bias", "qk_norm", "post_norm", "token_types")
"""The fields that an architecture settles; the others are numbers in the metadata."""

ROPE_FACTORS = "rope_freqs.weight"
"""A tensor by which Llama 3.1's frequencies are divided; what it was made from, the metadata do not say."""


def architecture_of(config: ModelConfig) -> str:
    """Return the name under which llama.cpp runs such a model.

    Raises
    ------
    InputError: it runs none like it.
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
    """Return the architecture's name and the configuration that the metadata describe.

    Raises
    ------
    InputError: the architecture, or a feature of it, is not known; a value is missing or impossible.
    """
    name = header.require("general.architecture", str)
    if name not in ARCHITECTURES:
        fix = f"Known are {', '.join(ARCHITECTURES)}."
        raise InputError(f"holds a model of the architecture {name!r}, which is not known", where=header.path, fix=fix)
    if header.get("split.count", int, 1) > 1:
        fix = "Join the parts with llama.cpp's gguf-split first."
        raise InputError("is one of several files that are one model together", where=header.path, fix=fix)
    heads = header.require(f"{name}.attention.head_count", int)
    context = header.require(f"{name}.context_length", int)
    fields: dict[str, Any] = {
        **ARCHITECTURES[name],
        "vocab_size": len(header.require("tokenizer.ggml.tokens", list)),
        "embedding_dim": header.require(f"{name}.embedding_length", int),
        "num_layers": header.require(f"{name}.block_count", int),
        "num_heads": heads,
        "num_kv_heads": header.get(f"{name}.attention.head_count_kv", int, heads),
        "ff_dim": header.require(f"{name}.feed_forward_length", int),
        # Within a sliding window, attention is what it is without; llama.cpp's architectures of these names have none.
        "context_length": min(context, header.get(f"{name}.attention.sliding_window", int, 0) or context),
        "tied_embeddings": "output.weight" not in header.tensors,
    }
    if fields.get("norm") == "layer":
        fields["norm_eps"] = header.require(f"{name}.attention.layer_norm_epsilon", float)
    else:
        fields["norm_eps"] = header.require(f"{name}.attention.layer_norm_rms_epsilon", float)
    if fields.get("position") != "learned":
        fields |= _read_rotary(header, name)
    config = ModelConfig.parse(fields, where=header.path)
    if config.position == "rotary" and header.get(f"{name}.rope.dimension_count", int, config.head_dim) != (
        config.head_dim
    ):
        raise InputError("turns a part of each head only, which is not supported", where=header.path)
    return name, config


def _read_rotary(header: Header, name: str) -> dict[str, Any]:
    kind = header.get(f"{name}.rope.scaling.type", str, "linear")
    factor = header.get(f"{name}.rope.scaling.factor", float, 0.0) or header.get(
        f"{name}.rope.scale_linear", float, 1.0
    )
    if kind not in ("none", "linear"):
        raise InputError(f"rotary positions scaled by {kind!r} are not supported", where=header.path)
    width = header.get(f"{name}.attention.key_length", int)
    if width != header.get(f"{name}.attention.value_length", int, width):
        raise InputError("keys and values of different widths are not supported", where=header.path)
    scaled = kind == "linear" and factor != 1
    return {
        "head_dim": width,
        "rope_theta": header.get(f"{name}.rope.freq_base", float, 10_000.0),
        "rope_scaling": {"kind": "linear", "factor": factor} if scaled else None,
    }


def with_rope_factors(config: ModelConfig, header: Header) -> ModelConfig:
    """Return `config` with the scaling that `ROPE_FACTORS` amount to, if the file has any.

    Raises
    ------
    InputError: they are of another shape, or are not Llama 3.1's for any context that models were trained on.
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
    """Return what `ROPE_FACTORS` hold, (d / 2,): by how much each frequency is divided."""
    return rotary_frequencies(head_dim, theta) / rotary_frequencies(head_dim, theta, scaling)


def metadata_of(config: ModelConfig) -> dict[str, Any]:
    """Return what a file says about a model's shape; `read_config` reads it back."""
    name = architecture_of(config)
    epsilon = "layer_norm_rms_epsilon" if config.norm == "rms" else "layer_norm_epsilon"
    metadata: dict[str, Any] = {
        "context_length": config.context_length,
        "embedding_length": config.embedding_dim,
        "block_count": config.num_layers,
        "feed_forward_length": config.ff_dim,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        f"attention.{epsilon}": config.norm_eps,
        "vocab_size": config.vocab_size,
    }
    if config.position == "rotary":
        metadata |= {
            "attention.key_length": config.head_dim,
            "attention.value_length": config.head_dim,
            "rope.dimension_count": config.head_dim,
            "rope.freq_base": config.rope_theta,
        }
    if config.rope_scaling is not None and config.rope_scaling.kind == "linear":
        metadata |= {"rope.scaling.type": "linear", "rope.scaling.factor": config.rope_scaling.factor}
    return {f"{name}.{key}": value for key, value in metadata.items()}
