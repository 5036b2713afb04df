"""BERT (Devlin et al. 2018, arXiv:1810.04805): post-norm, token types, and a transform before the output layer."""

from __future__ import annotations

from lucidlm.checkpoint.family import Family, module

LAYER = "encoder.layer.{}"

BERT = Family(
    model_type="bert",
    architectures={
        "language": "BertForMaskedLM",
        "classifier": "BertForSequenceClassification",
        "tagger": "BertForTokenClassification",
        "span": "BertForQuestionAnswering",
    },
    backbone="BertModel",
    arrangement={
        "causal": False,
        "norm": "layer",
        "position": "learned",
        "bias": True,
        "qk_norm": False,
        "post_norm": True,
        "head_transform": True,
    },
    activations={"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh"},
    sizes={
        "vocab_size": "vocab_size",
        "embedding_dim": "hidden_size",
        "num_heads": "num_attention_heads",
        "ff_dim": "intermediate_size",
        "num_layers": "num_hidden_layers",
        "context_length": "max_position_embeddings",
        "norm_eps": "layer_norm_eps",
        "token_types": "type_vocab_size",
        "tied_embeddings": "tie_word_embeddings",
        "dropout": "hidden_dropout_prob",
    },
    defaults={
        "max_position_embeddings": 512,
        "layer_norm_eps": 1e-12,
        "type_vocab_size": 2,
        "hidden_dropout_prob": 0.1,
    },
    required={
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "add_cross_attention": False,
    },
    constants={"attention_probs_dropout_prob": 0.0},
    modules=(
        module("embeddings.word_embeddings", "embed_tokens"),
        module("embeddings.position_embeddings", "embed_positions"),
        module("embeddings.token_type_embeddings", "embed_types"),
        module("embeddings.LayerNorm", "embed_norm"),
        module(f"{LAYER}.attention.self.query", "layers.{}.self_attn.q_proj"),
        module(f"{LAYER}.attention.self.key", "layers.{}.self_attn.k_proj"),
        module(f"{LAYER}.attention.self.value", "layers.{}.self_attn.v_proj"),
        module(f"{LAYER}.attention.output.dense", "layers.{}.self_attn.o_proj"),
        module(f"{LAYER}.attention.output.LayerNorm", "layers.{}.post_attention_layernorm"),
        module(f"{LAYER}.intermediate.dense", "layers.{}.mlp.up_proj"),
        module(f"{LAYER}.output.dense", "layers.{}.mlp.down_proj"),
        module(f"{LAYER}.output.LayerNorm", "layers.{}.post_mlp_layernorm"),
    ),
    heads={
        "language": (
            module("cls.predictions.transform.dense", "transform.dense"),
            module("cls.predictions.transform.LayerNorm", "transform.norm"),
            module("cls.predictions.bias", "transform.output_bias"),
            module("cls.predictions.decoder", "lm_head"),
        ),
        "classifier": (module("bert.pooler.dense", "dense"),),
    },
    prefix="bert.",
    legacy_names={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    duplicates={"cls.predictions.decoder.bias": "cls.predictions.bias"},
    ignored=r"position_ids$|^cls\.seq_relationship\.",
    equal_heads=True,
    classifier_pooling="first",
)
