"""Normalisation of activations over their last dimension."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from lucidlm.model.config import ModelConfig


class RMSNorm(nn.Module):
    """Divide by the root mean square and scale (Zhang & Sennrich 2019, arXiv:1910.07467); statistics in fp32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` (..., width); returns the same shape and dtype."""
        return functional.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


def make_norm(config: ModelConfig) -> nn.Module:
    """Return the norm over the residual stream that `config` asks for."""
    if config.norm == "rms":
        return RMSNorm(config.embedding_dim, config.norm_eps)
    return nn.LayerNorm(config.embedding_dim, config.norm_eps, bias=config.bias)
