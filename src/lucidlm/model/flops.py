"""Exact counts of parameters and floating-point operations, from the configuration alone."""

from __future__ import annotations

from lucidlm.model.config import ModelConfig


def count_parameters(config: ModelConfig) -> int:
    """Return the number of parameters of a `LanguageModel`; a tied embedding counts once."""
    width, d = config.embedding_dim, config.head_dim
    norm = width * (2 if config.norm == "layer" and config.bias else 1)
    biases = (config.num_heads + 2 * config.num_kv_heads) * d if config.qkv_bias and not config.bias else 0
    if config.bias:
        biases = config.num_heads * d + 2 * config.num_kv_heads * d + width  # attention
        biases += config.ff_dim * (2 if config.activation == "swiglu" else 1) + width  # MLP
    block = _matrix_weights(config) + biases + 2 * norm + (2 * d if config.qk_norm else 0)
    tables = config.vocab_size * width * (1 if config.tied_embeddings else 2)
    tables += config.context_length * width if config.position == "learned" else 0
    tables += config.token_types * width
    head = width * width + width + norm + config.vocab_size if config.head_transform else 0
    return tables + config.num_layers * block + norm + head


def flops_per_token(config: ModelConfig, length: int, *, training: bool = True) -> int:
    """Return the floating-point operations per token of a `LanguageModel` reading `length` tokens.

    Counts matrix products (a multiply and an add are two operations), the output head included and the embedding
    look-up, norms and activations left out, as is the custom (Kaplan et al. 2020, arXiv:2001.08361, appendix B); causal
    attention counts the half that is needed. Training is three times the forward pass.
    """
    head = config.vocab_size * config.embedding_dim
    products = 2 * (config.num_layers * _matrix_weights(config) + head)
    seen = (length + 1) / 2 if config.causal else length
    attention = round(4 * config.num_layers * config.num_heads * config.head_dim * seen)
    return (products + attention) * (3 if training else 1)


def _matrix_weights(config: ModelConfig) -> int:
    """Return the weights in one block's matrices."""
    width, d = config.embedding_dim, config.head_dim
    attention = 2 * width * config.num_heads * d + 2 * width * config.num_kv_heads * d
    return attention + width * config.ff_dim * (3 if config.activation == "swiglu" else 2)
