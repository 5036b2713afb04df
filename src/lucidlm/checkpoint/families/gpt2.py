"""GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"), GPT-3's architecture too.

Its matrices are stored as (inputs, outputs); query, key and value projections are fused in one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lucidlm.checkpoint.family import Family, module

ATTENTION, MLP = "layers.{}.self_attn", "layers.{}.mlp"


def _mlp_width(fields: Mapping[str, Any]) -> dict[str, Any]:
    width = fields.get("n_embd")
    return {} if fields.get("n_inner") or not isinstance(width, int) else {"ff_dim": 4 * width}


GPT2 = Family(
    model_type="gpt2",
    architectures={
        "language": "GPT2LMHeadModel",
        "classifier": "GPT2ForSequenceClassification",
        "tagger": "GPT2ForTokenClassification",
        "span": "GPT2ForQuestionAnswering",
    },
    backbone="GPT2Model",
    arrangement={
        "norm": "layer",
        "position": "learned",
        "bias": True,
        "qk_norm": False,
    },
    activation="activation_function",
    activations={
        "gelu_new": "gelu_tanh",
        "gelu_pytorch_tanh": "gelu_tanh",
        "gelu_fast": "gelu_tanh",
        "gelu": "gelu",
        "relu2": "relu2",
    },
    sizes={
        "vocab_size": "vocab_size",
        "embedding_dim": "n_embd",
        "num_heads": "n_head",
        "ff_dim": "n_inner",
        "num_layers": "n_layer",
        "context_length": "n_positions",
        "norm_eps": "layer_norm_epsilon",
        "tied_embeddings": "tie_word_embeddings",
        "dropout": "resid_pdrop",
    },
    defaults={"layer_norm_epsilon": 1e-5, "resid_pdrop": 0.1},
    required={
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    },
    modules=(
        module("wte", "embed_tokens"),
        module("wpe", "embed_positions"),
        module("h.{}.ln_1", "layers.{}.input_layernorm"),
        module("h.{}.attn.c_attn", *(f"{ATTENTION}.{name}_proj" for name in ("q", "k", "v")), transposed=True),
        module("h.{}.attn.c_proj", f"{ATTENTION}.o_proj", transposed=True),
        module("h.{}.ln_2", "layers.{}.post_attention_layernorm"),
        module("h.{}.mlp.c_fc", f"{MLP}.up_proj", transposed=True),
        module("h.{}.mlp.c_proj", f"{MLP}.down_proj", transposed=True),
        module("ln_f", "norm"),
    ),
    heads={"tagger": (module("classifier", "score"),)},
    prefix="transformer.",
    ignored=r"\.attn\.(masked_)?bias$",
    equal_heads=True,
    read=_mlp_width,
    # llama.cpp's converter asks for the context under its older name.
    write=lambda config: {"n_ctx": config.context_length, "embd_pdrop": config.dropout, "attn_pdrop": 0.0},
)
