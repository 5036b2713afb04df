"""EuroBERT (Boizard et al. 2025, arXiv:2503.05500): Llama with bidirectional attention; our masked default."""

from __future__ import annotations

from lucidlm.checkpoint.families.rotary import ROTARY
from lucidlm.checkpoint.family import Family

EUROBERT = Family(
    model_type="eurobert",
    architectures={
        "language": "EuroBertForMaskedLM",
        "classifier": "EuroBertForSequenceClassification",
        "tagger": "EuroBertForTokenClassification",
    },
    backbone="EuroBertModel",
    arrangement={"causal": False, "qk_norm": False},
    # The mask token's id must be in the vocabulary; it is set from the tokenizer.
    constants={"attention_dropout": 0.0, "mask_token_id": 0},
    **ROTARY,
    defaults={
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "classifier_pooling": "late",
    },
    required={"attention_bias": False, "mlp_bias": False},
    classifier_pooling="mean",
)
