"""Low-rank adaptation (Hu et al. 2021, arXiv:2106.09685)."""

from __future__ import annotations

from pydantic import Field

from lucidlm.core.config import Config


class LoraConfig(Config):
    """Adapters of low rank beside the matrices of a model.

    Parameters
    ----------
    rank: r, the width of the bottleneck.
    alpha: the adapter's output is scaled by alpha / rank.
    dropout: share of the adapter's inputs dropped in training.
    targets: the last part of the names of the matrices that get one.
    """

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
