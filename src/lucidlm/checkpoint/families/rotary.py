"""Fields of config.json that Llama, Mistral, Qwen and EuroBERT share: sizes, activation, rotary positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lucidlm.core.errors import InputError
from lucidlm.model.config import ModelConfig

LLAMA3 = {
    "low_frequency": "low_freq_factor",
    "high_frequency": "high_freq_factor",
    "original_context": "original_max_position_embeddings",
}


def read_positions(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return `rope_theta` and `rope_scaling` from a config.json of any version of transformers.

    Raises
    ------
    InputError: the kind of scaling is not supported, or it differs from layer to layer.
    """
    rope = fields.get("rope_scaling") or fields.get("rope_parameters") or {}
    if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
        raise InputError(f"rotary positions should be described once, for all layers, not as {rope!r}")
    kind = rope.get("rope_type", rope.get("type", "default"))
    theta = rope.get("rope_theta", fields.get("rope_theta", 10_000.0))
    if rope.get("partial_rotary_factor", fields.get("partial_rotary_factor")) not in (None, 1):
        raise InputError("rotary positions of a part of each head are not supported", fix="Choose another model.")
    if kind == "default":
        return {"rope_theta": theta}
    if kind not in ("linear", "llama3"):
        raise InputError(f"rotary positions scaled by {kind!r} are not supported", fix="Known are linear and llama3.")
    scaling = {"kind": kind, "factor": rope.get("factor")}
    if kind == "llama3":
        original = LLAMA3["original_context"]
        trained = fields.get(original) or rope.get(original) or fields.get("max_position_embeddings")
        scaling |= {ours: rope.get(theirs) for ours, theirs in LLAMA3.items()} | {"original_context": trained}
    return {"rope_theta": theta, "rope_scaling": scaling}


def write_positions(config: ModelConfig) -> dict[str, Any]:
    """Return the fields of config.json for rotary positions."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if (scaling := config.rope_scaling) is not None:
        rope |= {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind == "llama3":
            rope |= {theirs: getattr(scaling, ours) for ours, theirs in LLAMA3.items()}
    # transformers reads the first two up to version 4, the last since.
    return {"rope_theta": config.rope_theta, "rope_scaling": rope if scaling else None, "rope_parameters": rope}


ROTARY: dict[str, Any] = {
    "sizes": {
        "vocab_size": "vocab_size",
        "embedding_dim": "hidden_size",
        "num_heads": "num_attention_heads",
        "ff_dim": "intermediate_size",
        "num_layers": "num_hidden_layers",
        "num_kv_heads": "num_key_value_heads",
        "head_dim": "head_dim",
        "context_length": "max_position_embeddings",
        "norm_eps": "rms_norm_eps",
        "tied_embeddings": "tie_word_embeddings",
    },
    "activations": {"silu": "swiglu", "swish": "swiglu"},
    "ignored": r"rotary_emb\.inv_freq$",
    "read": read_positions,
    "write": write_positions,
}
"""The arguments of `Family` that they share."""
