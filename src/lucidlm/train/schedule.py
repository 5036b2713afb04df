"""The learning rate as a share of its peak, from how far the run is."""

from __future__ import annotations

import math

from lucidlm.train.config import ScheduleConfig


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
