"""How softmax(q kᵀ / √d) v is computed: one function a backend, and the one place that chooses between them.

A backend is chosen once for a forward pass, outside of the blocks, so what torch.compile makes of a block depends on
the backend's name only. A new one is a function here, an entry in `BACKENDS`, and a case in `choose_backend`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from lucidlm.core.matmul import uses_onednn
from lucidlm.model.position import CosSin

BackendName = Literal["explicit", "sdpa"]

LARGEST_EXPLICIT = 512 * 512
"""Most scores a head, T * S, for which holding them all is faster than PyTorch's fused kernel."""


@dataclass(frozen=True)
class AttentionContext:
    """What all layers of one forward pass share.

    Parameters
    ----------
    backend: which of `BACKENDS` computes attention.
    causal: query t attends to keys 0 … t; queries and keys then are the same tokens.
    mask: (B or 1, 1, T or 1, S) bool, true where a query may attend to a key; None: to all, or as `causal` says.
    rotary: cosines and sines of the rotary positions; None: the model has learned positions.
    """

    backend: BackendName
    causal: bool
    mask: Tensor | None
    rotary: CosSin | None


class AttentionBackend(Protocol):
    """Computes attention; see `attend`."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, context: AttentionContext) -> Tensor: ...


def attend(q: Tensor, k: Tensor, v: Tensor, context: AttentionContext) -> Tensor:
    """Return softmax(q kᵀ / √d) v, (B, H, T, d), for `q` (B, H, T, d) and `k`, `v` (B, G, S, d); H is a multiple of G."""
    return BACKENDS[context.backend](q, k, v, context)


def choose_backend(device: torch.device, queries: int, keys: int) -> BackendName:
    """Return the faster backend for so many queries (T) and keys (S) on `device`."""
    return "explicit" if uses_onednn(device) and queries * keys <= LARGEST_EXPLICIT else "sdpa"


def attend_sdpa(q: Tensor, k: Tensor, v: Tensor, context: AttentionContext) -> Tensor:
    """Attend by PyTorch's fused kernel (FlashAttention where there is one: Dao 2023, arXiv:2307.08691)."""
    grouped = q.shape[1] != k.shape[1]
    return scaled_dot_product_attention(
        q, k, v, attn_mask=context.mask, is_causal=context.causal, enable_gqa=grouped
    )  # (B, H, T, d)


def attend_explicit(q: Tensor, k: Tensor, v: Tensor, context: AttentionContext) -> Tensor:
    """Attend by three large products, which oneDNN is fast at; the fused kernel makes many small ones."""
    rows, heads, length, width = q.shape
    k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (k, v))  # (B, H, S, d)
    mask = causal_mask(length, device=q.device)[None, None] if context.causal else context.mask
    bias = q.new_zeros(1)
    if mask is not None:
        bias = q.new_zeros(mask.shape).masked_fill_(~mask, float("-inf"))
        bias = bias if mask.shape[0] == 1 else bias.repeat_interleave(heads, dim=0)
        bias = bias.flatten(0, 1)  # (1 or B * H, 1 or T, S)
    q, k, v = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)  # (B * H, ...)
    scores = torch.baddbmm(bias, q, k.mT, alpha=width**-0.5)  # (B * H, T, S)
    return (scores.softmax(-1) @ v).unflatten(0, (rows, heads))  # (B, H, T, d)


BACKENDS: dict[BackendName, AttentionBackend] = {"explicit": attend_explicit, "sdpa": attend_sdpa}


def causal_mask(length: int, past: int = 0, device: torch.device | None = None) -> Tensor:
    """Return (length, past + length) bool, true where token `past + row` may attend to token `column`."""
    return torch.ones(length, past + length, dtype=torch.bool, device=device).tril(past)
