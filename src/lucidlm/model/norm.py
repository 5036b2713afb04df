"""Normalisation of activations over their last dimension."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
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
        weight = self.weight.to(x.dtype)
        # PyTorch has a kernel for GPUs, and its compiler makes one. Otherwise it derives the gradient from six operations.
        if x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return _RMSNorm.apply(x, weight, self.eps)
        return functional.rms_norm(x, weight.shape, weight, self.eps)


class _RMSNorm(torch.autograd.Function):
    """The norm with its gradient written out, which takes a third of the time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        squares = torch.linalg.vector_norm(
            x, dim=-1, keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32)
        ).square_()
        scale = squares.div_(x.shape[-1]).add_(eps).rsqrt_()  # (..., 1)
        normalised = x * scale
        ctx.save_for_backward(normalised, scale, weight)
        return (normalised * weight).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        normalised, scale, weight = ctx.saved_tensors
        of_normalised = gradient * weight.to(normalised.dtype)
        along = (of_normalised * normalised).mean(-1, keepdim=True)  # changing the length changes nothing
        of_x = of_normalised.addcmul_(normalised, along, value=-1).mul_(scale)
        of_weight = (gradient * normalised).flatten(0, -2).sum(0)
        return of_x.to(gradient.dtype), of_weight.to(weight.dtype), None


def make_norm(config: ModelConfig) -> nn.Module:
    """Return the norm over the residual stream that `config` asks for."""
    if config.norm == "rms":
        return RMSNorm(config.embedding_dim, config.norm_eps)
    return nn.LayerNorm(config.embedding_dim, config.norm_eps, bias=config.bias)
