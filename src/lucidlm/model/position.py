"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lucidlm.model.config import ModelConfig, RopeScaling


class CosSin(NamedTuple):
    """The cosines and sines of each position's angles, (B or 1, 1, T, d / 2), fp32."""

    cos: Tensor
    sin: Tensor


class Rotary(nn.Module):
    """From positions to the angles that queries and keys are rotated by."""

    frequencies: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        # Derived from the configuration, so real even where weights are yet to be loaded, and not saved with them.
        frequencies = rotary_frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, positions: Tensor) -> CosSin:
        """Return cosines and sines for `positions` (B or 1, T) int64."""
        angles = positions[:, None, :, None].float() * self.frequencies  # (B or 1, 1, T, d / 2)
        return CosSin(angles.cos(), angles.sin())


def rotary_frequencies(head_dim: int, theta: float, scaling: RopeScaling | None = None) -> Tensor:
    """Return by how many radians each pair of a head's dimensions rotates from a token to the next, fp32 (d / 2,)."""
    frequencies = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim)
    if scaling is None:
        return frequencies
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    turns = scaling.original_context * frequencies / (2 * math.pi)
    kept = (turns - scaling.low_frequency) / (scaling.high_frequency - scaling.low_frequency)
    return frequencies / scaling.factor + (frequencies - frequencies / scaling.factor) * kept.clamp(0, 1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate `x` (B, H, T, d) by its positions' angles: dimension i is paired with dimension i + d / 2."""
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1).to(x.dtype)
