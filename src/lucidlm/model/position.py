"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lucidlm.model.config import ModelConfig, RopeScaling


class Rotary(nn.Module):
    """The rotations by which queries and keys are turned, from their positions."""

    frequencies: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # Derived from the configuration, so real even where weights are yet to be loaded, and not saved with them.
        frequencies = rotary_frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines for `positions` (B or 1, T) int64; each (B or 1, 1, T, d / 2), fp32."""
        angles = positions[:, None, :, None].float() * self.frequencies
        return angles.cos(), angles.sin()


def rotary_frequencies(head_dim: int, theta: float, scaling: RopeScaling | None = None) -> Tensor:
    """Return how far, in radians, each pair of a head's dimensions turns from a token to the next, fp32 (d / 2,)."""
    frequencies = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim)
    if scaling is None:
        return frequencies
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    turns = scaling.original_context * frequencies / (2 * math.pi)
    kept = (turns - scaling.low_frequency) / (scaling.high_frequency - scaling.low_frequency)
    return frequencies / scaling.factor + (frequencies - frequencies / scaling.factor) * kept.clamp(0, 1)


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn `x` (B, H, T, d) by its positions' angles: the pair of dimension i is dimension i + d / 2."""
    cos, sin = rotation
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1).to(x.dtype)
