"""The learning rate as a share of its peak, from how far the run is."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from lucidlm.core.config import Config


class ScheduleConfig(Config):
    """How the learning rate rises and falls.

    Parameters
    ----------
    name: "trapezoid" warms up, stays, and decays linearly (warm-up–stable–decay: Hu et al. 2024, arXiv:2404.06395;
        Hägele et al. 2024, arXiv:2405.18392); "cosine" warms up and follows half a cosine (Loshchilov & Hutter 2017).
    warmup, decay: shares of the run; `decay` is the trapezoid's.
    floor: what the rate ends at, as a share of its peak.
    """

    name: Literal["trapezoid", "cosine"] = "trapezoid"
    warmup: float = Field(default=0.02, ge=0, le=1)
    decay: float = Field(default=0.5, ge=0, le=1)
    floor: float = Field(default=0.0, ge=0, le=1)


def rate(config: ScheduleConfig, progress: float) -> float:
    """Return the factor on the peak learning rate at `progress` in [0, 1]."""
    if progress < config.warmup:
        return progress / config.warmup
    if config.name == "cosine":
        share = (progress - config.warmup) / max(1 - config.warmup, 1e-9)
        fall = 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    else:
        fall = min(1.0, max(0.0, 1 - progress) / max(config.decay, 1e-9))
    return config.floor + (1 - config.floor) * fall
