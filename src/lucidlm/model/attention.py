"""Multi-head attention (Vaswani et al. 2017, arXiv:1706.03762) with grouped key heads (Ainslie et al. 2023,
arXiv:2305.13245) and norms on queries and keys (Henry et al. 2020, arXiv:2010.04245)."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lucidlm.core.matmul import from_onednn
from lucidlm.model.config import ModelConfig
from lucidlm.model.norm import RMSNorm
from lucidlm.model.position import rotate

LARGEST_EXPLICIT = 512 * 512
"""Most scores a head for which holding them all is worth it."""


class LayerCache(Protocol):
    """What one layer has computed for earlier tokens."""

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append `keys` and `values` (B, G, T, d); return all that is held, each (B, G, S, d)."""
        ...


class Attention(nn.Module):
    """Each token looks at the tokens it may see and takes a weighted mean of what they offer."""

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
        self.causal, self.head_dim = config.causal, d

    def forward(
        self, x: Tensor, rotation: tuple[Tensor, Tensor] | None, mask: Tensor | None, cache: LayerCache | None
    ) -> Tensor:
        """Attend over `x` (B, T, D); with a cache, over what it holds too.

        `mask` (B, 1, T, S), true where a token may be seen, replaces the causal pattern. Returns (B, T, D).
        """
        q = self.q_norm(self._heads(self.q_proj(x)))  # (B, H, T, d)
        k = self.k_norm(self._heads(self.k_proj(x)))  # (B, G, T, d)
        v = self._heads(self.v_proj(x))  # (B, G, T, d)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        if cache is not None:
            k, v = cache.extend(k, v)  # (B, G, S, d)
        length, seen = q.shape[2], k.shape[2]
        if self.causal and mask is None and 1 < length < seen:
            mask = causal_mask(length, seen - length, q.device)[None, None]
        # A single new token may see all that came before it, so it needs no causal pattern.
        causal = self.causal and mask is None and length > 1
        y = attend(q, k, v, mask, causal)  # (B, H, T, d)
        return self.o_proj(y.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, T, H * d) -> (B, H, T, d)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Return softmax(q kᵀ / √d) v, (B, H, T, d), for `q` (B, H, T, d) and `k`, `v` (B, G, S, d)."""
    heads, groups = q.shape[1], k.shape[1]
    if from_onednn(q.device) and q.shape[2] * k.shape[2] <= LARGEST_EXPLICIT:
        return _attend_in_full(q, k, v, mask, causal)
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=groups != heads)


def _attend_in_full(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Attend by three large products, which oneDNN is fast at; PyTorch's fused kernel makes many small ones."""
    rows, heads, length, width = q.shape
    k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (k, v))  # (B, H, S, d)
    if causal:
        mask = causal_mask(length, device=q.device)[None, None]
    bias = q.new_zeros(1)
    if mask is not None:
        bias = q.new_zeros(mask.shape).masked_fill_(~mask, float("-inf"))
        bias = bias if mask.shape[0] == 1 else bias.repeat_interleave(heads, dim=0)
        bias = bias.flatten(0, 1)  # (1 or B * H, 1 or T, S)
    q, k, v = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
    scores = torch.baddbmm(bias, q, k.mT, alpha=width**-0.5)  # (B * H, T, S)
    return (scores.softmax(-1) @ v).unflatten(0, (rows, heads))


def causal_mask(length: int, past: int = 0, device: torch.device | None = None) -> Tensor:
    """Return (length, past + length), true where token `past + row` may see token `column`."""
    return torch.ones(length, past + length, dtype=torch.bool, device=device).tril(past)
