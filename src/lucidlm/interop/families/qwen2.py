"""Qwen2 and Qwen2.5 (Yang et al. 2024, arXiv:2407.10671): Llama with biases on queries, keys and values."""

from __future__ import annotations

from lucidlm.model.family import ROTARY_SIZES, Family

QWEN2 = Family(
    model_type="qwen2",
    architectures={
        "language": "Qwen2ForCausalLM",
        "classifier": "Qwen2ForSequenceClassification",
        "span": "Qwen2ForQuestionAnswering",
    },
    backbone="Qwen2Model",
    arrangement={"qk_norm": False, "qkv_bias": True},
    sizes=ROTARY_SIZES,
    defaults={"max_position_embeddings": 32768, "tie_word_embeddings": False},
    demands={"hidden_act": "silu", "use_sliding_window": False},
    constants={"attention_dropout": 0.0},
    ignored=r"rotary_emb\.inv_freq$",
)
