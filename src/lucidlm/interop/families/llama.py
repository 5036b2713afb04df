"""Llama (Touvron et al. 2023, arXiv:2302.13971; Dubey et al. 2024, arXiv:2407.21783), and with it SmolLM, TinyLlama and
Mistral (Jiang et al. 2023, arXiv:2310.06825), which are configurations of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lucidlm.model.family import Family

LLAMA = Family(
    model_type="llama",
    architectures={
        "language": "LlamaForCausalLM",
        "classifier": "LlamaForSequenceClassification",
        "span": "LlamaForQuestionAnswering",
    },
    backbone="LlamaModel",
    arrangement={"qk_norm": False},
    defaults={"max_position_embeddings": 2048, "tie_word_embeddings": False},
    demands={"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
    constants={"attention_dropout": 0.0},
    ignored=r"rotary_emb\.inv_freq$",
)


def _within_window(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Attention over a sliding window is attention over everything in a context no longer than the window."""
    window, context = fields.get("sliding_window"), fields["max_position_embeddings"]
    return {"context_length": min(window, context)} if isinstance(window, int) and isinstance(context, int) else {}


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
    derived=_within_window,
)
