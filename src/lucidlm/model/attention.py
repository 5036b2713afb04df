"""Multi-head attention (Vaswani et al. 2017, arXiv:1706.03762) with grouped key heads (Ainslie et al. 2023,
arXiv:2305.13245) and norms on queries and keys (Henry et al. 2020, arXiv:2010.04245)."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from lucidlm.model.attention_backends import AttentionContext, attend
from lucidlm.model.config import ModelConfig
from lucidlm.model.norm import RMSNorm
from lucidlm.model.position import rotate


class LayerCache(Protocol):
    """The keys and values that one layer has computed for earlier tokens."""

    @property
    def length(self) -> int:
        """How many tokens are held."""
        ...

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append `keys` and `values` (B, G, T, d); return all that is held, each (B, G, S, d)."""
        ...


class Attention(nn.Module):
    """Each token attends to the tokens that it may see: a mean of their value vectors, weighted by query and key."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, d = config.embedding_dim, config.head_dim
        biased = config.bias or config.qkv_bias
        self.q_proj = nn.Linear(width, config.num_heads * d, bias=biased)
        self.k_proj = nn.Linear(width, config.num_kv_heads * d, bias=biased)
        self.v_proj = nn.Linear(width, config.num_kv_heads * d, bias=biased)
        self.o_proj = nn.Linear(config.num_heads * d, width, bias=config.bias)
        self.q_norm = RMSNorm(d, config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(d, config.norm_eps) if config.qk_norm else nn.Identity()
        self.head_dim = d

    def forward(self, x: Tensor, context: AttentionContext, cache: LayerCache | None) -> Tensor:
        """Attend over `x` (B, T, D); with a cache, over the tokens it holds too. Returns (B, T, D)."""
        q = self.q_norm(self._split_heads(self.q_proj(x)))  # (B, H, T, d)
        k = self.k_norm(self._split_heads(self.k_proj(x)))  # (B, G, T, d)
        v = self._split_heads(self.v_proj(x))  # (B, G, T, d)
        if context.rotary is not None:
            q, k = rotate(q, *context.rotary), rotate(k, *context.rotary)
        if cache is not None:
            k, v = cache.extend(k, v)  # (B, G, S, d)
        y = attend(q, k, v, context)  # (B, H, T, d)
        return self.o_proj(y.transpose(1, 2).flatten(2))

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, T, H * d) -> (B, H, T, d)
