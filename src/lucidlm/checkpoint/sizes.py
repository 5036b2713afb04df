"""Infer a model's sizes from the shapes of its weights, and check weights against the model that is to load them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lucidlm.core.errors import InputError
from lucidlm.model.config import ModelConfig


def infer_sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the constructor arguments that follow from the shapes of a language model's weights."""
    sizes: dict[str, Any] = {}
    first = "model.layers.0."
    if (embedding := tensors.get("model.embed_tokens.weight")) is not None and embedding.dim() == 2:
        sizes["vocab_size"], sizes["embedding_dim"] = embedding.shape
    if (query_norm := tensors.get(f"{first}self_attn.q_norm.weight")) is not None and query_norm.numel():
        for field, part in (("num_heads", "q"), ("num_kv_heads", "k")):
            if (projection := tensors.get(f"{first}self_attn.{part}_proj.weight")) is not None:
                sizes[field] = projection.shape[0] // query_norm.numel()
    if (hidden := tensors.get(f"{first}mlp.up_proj.weight")) is not None:
        sizes["ff_dim"] = hidden.shape[0]
        sizes["num_layers"] = len({name.split(".")[2] for name in tensors if name.startswith("model.layers.")})
    return sizes


def check_sizes(found: dict[str, Any], own: ModelConfig, names: Iterable[str], where: Path) -> None:
    """Compare a model's fields `names` with those `found` for the weights.

    Raises
    ------
    InputError: they differ; the message says how to construct a model that fits the weights.
    """
    ours = own.model_dump()
    if differences := [
        f"{name}={found[name]!r}, not {ours[name]!r}" for name in sorted(names) if found[name] != ours[name]
    ]:
        default = _DEFAULTS | {"num_kv_heads": found.get("num_heads"), "head_dim": None}
        if "head_dim" in found:
            default["head_dim"] = found["embedding_dim"] // found["num_heads"]
        arguments = ", ".join(f"{name}={value!r}" for name, value in found.items() if value != default[name])
        raise InputError(
            f"the weights are of a model with {'; '.join(differences)}",
            where=where,
            fix=f"Construct it with BigLanguageModel({arguments}).",
        )


_DEFAULTS = {name: field.default for name, field in ModelConfig.model_fields.items()}
