"""EuroBERT (Boizard et al. 2025, arXiv:2503.05500): Llama's arrangement, every token seeing all; our masked default."""

from __future__ import annotations

from lucidlm.model.family import Family

EUROBERT = Family(
    model_type="eurobert",
    architectures={"language": "EuroBertForMaskedLM", "classifier": "EuroBertForSequenceClassification"},
    backbone="EuroBertModel",
    arrangement={"causal": False, "qk_norm": False},
    defaults={
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 250_000.0,
        "tie_word_embeddings": False,
    },
    demands={"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
    constants={"attention_dropout": 0.0},
    ignored=r"rotary_emb\.inv_freq$",
    classifier_pooling="mean",
)
