"""Llama (Touvron et al. 2023, arXiv:2302.13971; Dubey et al. 2024, arXiv:2407.21783), and with it SmolLM, TinyLlama and
Mistral (Jiang et al. 2023, arXiv:2310.06825), which are configurations of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lucidlm.checkpoint.families.rotary import ROTARY, read_positions
from lucidlm.checkpoint.family import Family
from lucidlm.core.errors import InputError

LLAMA = Family(
    model_type="llama",
    architectures={
        "language": "LlamaForCausalLM",
        "classifier": "LlamaForSequenceClassification",
        "tagger": "LlamaForTokenClassification",
        "span": "LlamaForQuestionAnswering",
    },
    backbone="LlamaModel",
    arrangement={"qk_norm": False},
    constants={"attention_dropout": 0.0},
    **ROTARY,
    defaults={"max_position_embeddings": 2048, "tie_word_embeddings": False},
    required={"attention_bias": False, "mlp_bias": False},
)


def _read_mistral(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Attention over a sliding window is attention over everything in a context no longer than the window."""
    window, context = fields["sliding_window"], fields["max_position_embeddings"]
    if window is None:
        return read_positions(fields)
    if not isinstance(window, int) or window < 1:
        raise InputError(f"sliding_window is {window!r}, not a number of tokens", fix="Choose another model.")
    return read_positions(fields) | {"context_length": min(context, window) if isinstance(context, int) else context}


MISTRAL = replace(
    LLAMA,
    model_type="mistral",
    architectures={kind: name.replace("Llama", "Mistral") for kind, name in LLAMA.architectures.items()},
    backbone="MistralModel",
    defaults={
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
        "tie_word_embeddings": False,
    },
    prefix="model.",
    read=_read_mistral,
)
