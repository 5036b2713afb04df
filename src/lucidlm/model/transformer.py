"""The Transformer: token ids in, one hidden state a token out.

Modules carry the names that transformers gives them in Qwen3 and EuroBERT, so a saved state dict is already in the
form that other software reads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lucidlm.model.attention import Attention, LayerCache
from lucidlm.model.attention_backends import AttentionContext, causal_mask, choose_backend
from lucidlm.model.config import ModelConfig
from lucidlm.model.dropout import Dropout
from lucidlm.model.mlp import make_mlp
from lucidlm.model.norm import make_norm
from lucidlm.model.position import Rotary


class Block(nn.Module):
    """Attention, then MLP, each on normalised input and added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = make_norm(config)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = make_norm(config)
        self.mlp = make_mlp(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, context: AttentionContext, cache: LayerCache | None) -> Tensor:
        """Map the residual stream `x` (B, T, D) to (B, T, D); see `Attention.forward` for the rest."""
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), context, cache))
        return x + self.dropout(self.mlp(self.post_attention_layernorm(x)))


class PostNormBlock(nn.Module):
    """Attention, then MLP, each added to its input and the sum normalised (Vaswani et al. 2017; BERT)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.post_attention_layernorm = make_norm(config)
        self.mlp = make_mlp(config)
        self.post_mlp_layernorm = make_norm(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, context: AttentionContext, cache: LayerCache | None) -> Tensor:
        """Map `x` (B, T, D) to (B, T, D); see `Attention.forward` for the rest."""
        x = self.post_attention_layernorm(x + self.dropout(self.self_attn(x, context, cache)))
        return self.post_mlp_layernorm(x + self.dropout(self.mlp(x)))


class Transformer(nn.Module):
    """Embedding, blocks, final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_dim)
        rotary = config.position == "rotary"
        self.rotary = Rotary(config) if rotary else None
        self.embed_positions = None if rotary else nn.Embedding(config.context_length, config.embedding_dim)
        self.embed_types = nn.Embedding(config.token_types, config.embedding_dim) if config.token_types else None
        self.embed_norm = make_norm(config) if config.post_norm else nn.Identity()
        self.dropout = Dropout(config.dropout)
        block = PostNormBlock if config.post_norm else Block
        self.layers = nn.ModuleList(block(config) for _ in range(config.num_layers))
        self.norm = nn.Identity() if config.post_norm else make_norm(config)

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        mask: Tensor | None = None,
        caches: Sequence[LayerCache] | None = None,
    ) -> Tensor:
        """Return the final hidden states (B, T, D) of `tokens` (B, T) int64.

        Parameters
        ----------
        positions: (B, T) int64, the position of each token; None: 0 … T - 1.
        token_type_ids: (B, T) int64, the segment of each token, if the model tells segments apart; None: all 0.
        mask: (B, 1 or T, S) bool, which tokens may be seen from where; None: the configured pattern (causal, or all).
        caches: one a layer, to be read and extended; None: `tokens` is everything.
        """
        x = self.embed_tokens(tokens)  # (B, T, D)
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        if self.embed_positions is not None:
            x = x + self.embed_positions(positions)
        if self.embed_types is not None:
            x = x + self.embed_types(torch.zeros_like(tokens) if token_type_ids is None else token_type_ids)
        x = self.dropout(self.embed_norm(x))
        context = self._context(tokens, positions, mask, past=0 if caches is None else caches[0].length)
        for index, layer in enumerate(self.layers):
            x = layer(x, context, None if caches is None else caches[index])
        return self.norm(x)

    def _context(self, tokens: Tensor, positions: Tensor, mask: Tensor | None, past: int) -> AttentionContext:
        length, device = tokens.shape[1], tokens.device
        mask = None if mask is None else mask[:, None]  # (B or 1, 1, 1 or T, S)
        # A single new token may attend to all that came before it, so it needs no causal pattern.
        causal = self.config.causal and mask is None and length > 1
        if causal and past:
            causal, mask = False, causal_mask(length, past, device)[None, None]
        return AttentionContext(
            choose_backend(device, length, past + length),
            causal,
            mask,
            None if self.rotary is None else self.rotary(positions),
        )


def initialise(module: nn.Module, config: ModelConfig, generator: torch.Generator) -> None:
    """Draw fresh weights: normal, standard deviation 0.02; what writes to the residual stream starts smaller, by
    1 / sqrt(2 * num_layers) (Radford et al. 2019), so that depth does not change the stream's scale.
    """
    for name, parameter in module.named_parameters():
        with torch.no_grad():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                parameter.normal_(
                    0.0, 0.02 / math.sqrt(2 * config.num_layers) if residual else 0.02, generator=generator
                )
