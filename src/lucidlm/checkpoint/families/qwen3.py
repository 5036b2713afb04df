"""Qwen3 (Yang et al. 2025, arXiv:2505.09388): our default arrangement."""

from __future__ import annotations

from lucidlm.checkpoint.families.rotary import ROTARY
from lucidlm.checkpoint.family import Family

QWEN3 = Family(
    model_type="qwen3",
    architectures={
        "language": "Qwen3ForCausalLM",
        "classifier": "Qwen3ForSequenceClassification",
        "tagger": "Qwen3ForTokenClassification",
        "span": "Qwen3ForQuestionAnswering",
    },
    backbone="Qwen3Model",
    constants={"attention_dropout": 0.0},
    **ROTARY,
    defaults={
        "head_dim": 128,
        "num_key_value_heads": 32,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": False,
    },
    required={"attention_bias": False, "use_sliding_window": False},
)
