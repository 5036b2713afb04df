"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Rotary(nn.Module):
    """Tables of the rotations by which queries and keys are turned, one row a position."""

    cos: Tensor
    sin: Tensor

    def __init__(self, head_width: int, context_length: int, theta: float) -> None:
        super().__init__()
        # Derived from the configuration, so real even where weights are yet to be loaded, and not saved with them.
        frequencies = theta ** -(torch.arange(0, head_width, 2, dtype=torch.float32, device="cpu") / head_width)
        positions = torch.arange(context_length, dtype=torch.float32, device="cpu")
        angles = torch.outer(positions, frequencies)  # (context, d / 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, positions: Tensor | None, length: int) -> tuple[Tensor, Tensor]:
        """Return cosines and sines for `positions` (B, T), or for 0 … length - 1; each (B or 1, 1, T, d / 2), fp32."""
        if positions is None:
            return self.cos[None, None, :length], self.sin[None, None, :length]
        return self.cos[positions][:, None], self.sin[positions][:, None]


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn `x` (B, H, T, d) by its positions' angles: the pair of dimension i is dimension i + d / 2."""
    cos, sin = rotation
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1).to(x.dtype)
