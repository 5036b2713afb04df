"""The shape of a Transformer, in the terms of its constructor (vocab_size, embedding_dim, num_heads, ff_dim, num_layers),
and of its adapters."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, ValidatorFunctionWrapHandler, field_validator, model_validator

from lucidlm.core.config import Config

Pooling = Literal["last", "mean", "first"]
"""What of a text's states stands for the text."""

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
"""What a classifier's logits mean, in transformers' words: one label of all (softmax), each label by itself (sigmoid), or
a number as it is."""


class RopeScaling(Config):
    """How rotary positions are stretched for contexts longer than those a model was first trained on.

    Parameters
    ----------
    kind: "linear" divides every frequency by `factor` (Chen et al. 2023, arXiv:2306.15595); "llama3" the low ones only,
        those with fewer than `low_frequency` turns in `original_context` tokens, leaves the high ones, with more than
        `high_frequency` turns, and goes over from one to the other between (Llama 3.1's model card).
    """

    kind: Literal["linear", "llama3"]
    factor: float = Field(ge=1e-3, le=1e6)
    low_frequency: float = Field(default=1.0, gt=0, le=1e6)
    high_frequency: float = Field(default=4.0, gt=0, le=1e6)
    original_context: int = Field(default=8192, ge=1, le=100_000_000)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.kind == "llama3" and self.low_frequency >= self.high_frequency:
            raise ValueError(
                f"low_frequency ({self.low_frequency}) is not below high_frequency ({self.high_frequency})"
            )
        return self


class ModelConfig(Config):
    """What a `Transformer` is made of.

    The defaults are the Qwen3 arrangement (RMSNorm before each part, rotary positions, SwiGLU, norms on queries and
    keys, tied embeddings, no biases), because transformers, vLLM and llama.cpp load it as it is. `masked` gives the
    bidirectional arrangement that transformers knows as EuroBERT.

    Parameters
    ----------
    vocab_size: number of token ids.
    embedding_dim: width D of the residual stream.
    num_layers, num_heads: number of blocks, and of query heads in each.
    num_kv_heads: number of key and value heads; fewer than `num_heads` is grouped-query attention. None: `num_heads`.
    head_dim: width of a head; None: `embedding_dim // num_heads`.
    ff_dim: width of the MLP's hidden layer.
    context_length: most tokens that the model is made to read at once.
    causal: each token sees only those before it (GPT), or all of them (BERT).
    bias: all linear layers and LayerNorms have biases; `qkv_bias`: those of queries, keys and values only (Qwen2).
    post_norm: norms stand after each residual sum and after the embedding, none at the end (Vaswani et al., BERT).
    token_types: number of segments that embeddings tell apart (BERT); 0: none.
    head_transform: states pass a dense layer, GELU and a norm before the output embedding, which has a bias (BERT).
    dropout: share of activations dropped in training after the embedding and each block's two parts.
    """

    vocab_size: int = Field(ge=2, le=10_000_000)
    embedding_dim: int = Field(ge=1, le=1_000_000)
    num_heads: int = Field(ge=1, le=10_000)
    ff_dim: int = Field(ge=1, le=4_000_000)
    num_layers: int = Field(ge=1, le=10_000)
    num_kv_heads: int = Field(default=0, ge=1)
    head_dim: int = Field(default=0, ge=2, le=1_000_000)
    context_length: int = Field(default=1024, ge=1, le=100_000_000)
    causal: bool = True
    norm: Literal["rms", "layer"] = "rms"
    norm_eps: float = Field(default=1e-6, gt=0, le=1)
    position: Literal["rotary", "learned"] = "rotary"
    rope_theta: float = Field(default=10_000.0, ge=1, le=1e12)
    rope_scaling: RopeScaling | None = None
    activation: Literal["swiglu", "gelu", "gelu_tanh", "relu2"] = "swiglu"
    bias: bool = False
    qkv_bias: bool = False
    qk_norm: bool = True
    post_norm: bool = False
    token_types: int = Field(default=0, ge=0, le=1_000)
    head_transform: bool = False
    tied_embeddings: bool = True
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @field_validator("num_kv_heads", "head_dim", mode="wrap")
    @classmethod
    def _none_is_derived(cls, value: Any, check: ValidatorFunctionWrapHandler) -> int:
        return 0 if value is None else check(value)

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        if not self.head_dim and self.embedding_dim % self.num_heads:
            raise ValueError(
                f"embedding_dim ({self.embedding_dim}) is not divisible by num_heads ({self.num_heads}); "
                f"the nearest widths that are: {self.embedding_dim // self.num_heads * self.num_heads or self.num_heads} "
                f"and {(self.embedding_dim // self.num_heads + 1) * self.num_heads}"
            )
        derived = {"num_kv_heads": self.num_heads, "head_dim": self.embedding_dim // self.num_heads}
        for name, value in derived.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)
                self.model_fields_set.discard(name)  # so that `changed` derives it anew
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads ({self.num_heads}) is not a multiple of num_kv_heads ({self.num_kv_heads})")
        if self.position == "rotary" and self.head_dim % 2:
            raise ValueError(f"rotary positions need an even head width, embedding_dim / num_heads is {self.head_dim}")
        if self.rope_scaling is not None and self.position != "rotary":
            raise ValueError("rope_scaling is of rotary positions, which this model has none of")
        if self.head_transform and self.causal:
            raise ValueError("head_transform is for masked models; a causal one reads its next token off the states")
        return self

    def changed(self, **fields: Any) -> Self:
        """Return a copy in which the given fields have new, checked values, and what follows from them too."""
        derived = {"num_kv_heads", "head_dim"} - self.model_fields_set
        return super().changed(**{**dict.fromkeys(derived), **fields})

    @classmethod
    def masked(cls, **fields: object) -> ModelConfig:
        """Return the default for masked (BERT-style) models: bidirectional, without norms on queries and keys."""
        return cls(**{"causal": False, "qk_norm": False, "norm_eps": 1e-5, **fields})


class LoraConfig(Config):
    """Low-rank adapters beside the matrices of a model (see `lucidlm.model.lora`).

    Parameters
    ----------
    rank: r, the width of the bottleneck.
    targets: the last part of the names of the matrices that get one; None: all matrices of the blocks.
    """

    rank: int = Field(default=8, ge=1, description="The rank of LoRA adapters.")
    alpha: float = Field(default=16.0, gt=0, description="The output of an adapter is scaled by alpha / rank.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Share of an adapter's inputs dropped in training.")
    targets: tuple[str, ...] | None = Field(default=None, min_length=1, description="Names of the adapted matrices.")
