"""Qwen2 and Qwen2.5 (Yang et al. 2024, arXiv:2407.10671): Llama with biases on queries, keys and values."""

from __future__ import annotations

from lucidlm.checkpoint.families.rotary import ROTARY
from lucidlm.checkpoint.family import Family

QWEN2 = Family(
    model_type="qwen2",
    architectures={
        "language": "Qwen2ForCausalLM",
        "classifier": "Qwen2ForSequenceClassification",
        "tagger": "Qwen2ForTokenClassification",
        "span": "Qwen2ForQuestionAnswering",
    },
    backbone="Qwen2Model",
    arrangement={"qk_norm": False, "qkv_bias": True},
    constants={"attention_dropout": 0.0},
    **ROTARY,
    defaults={"num_key_value_heads": 32, "max_position_embeddings": 32768, "tie_word_embeddings": False},
    required={"use_sliding_window": False},
)
