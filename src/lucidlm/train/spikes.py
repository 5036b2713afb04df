"""Loss spikes: a loss far above those before it, told from the noise of batches.

The rule is that of OLMo-core's `SkipStepOptimizer` (OLMo 2: OLMo et al. 2025, arXiv:2501.00656): more than six standard
deviations above the mean of the last 128 losses. Two things are added. A small rise is none, however still the losses
were: those of a classifier that has learned nearly all lie near zero until a hard text comes along. And what stands above
the limit is remembered as the limit, so that a spike hides none after it, and a loss that stays up is the usual one soon.

A gradient that is large while the loss is not is none either: clipping is for that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

WINDOW = 128
"""Losses that the next one is compared with."""
LEAST = 32
"""Losses that have to be known first: before them a run has no past to speak of."""
DEVIATIONS = 6.0
"""How far above their mean a spike stands, in standard deviations."""
RISE = 0.3
"""And how far at least, in the unit of the loss."""


@dataclass
class SpikeDetector:
    """Tells from the figures of each step whether a spike begins with it.

    Parameters
    ----------
    losses: the last ones, at most `WINDOW`, the newest at the end.
    high: whether the last one stood above the limit.
    """

    losses: list[float] = field(default_factory=list)
    high: bool = False

    @property
    def limit(self) -> float:
        """What the next loss may be, at most; infinite while too few are known."""
        if len(self.losses) < LEAST:
            return math.inf
        mean = math.fsum(self.losses) / len(self.losses)
        deviation = math.sqrt(math.fsum((loss - mean) ** 2 for loss in self.losses) / len(self.losses))
        return mean + max(DEVIATIONS * deviation, RISE)

    def begins(self, loss: float, norm: float) -> bool:
        """Take in the loss of a step and the norm of its gradient; return whether a spike begins with them.

        One that is not finite always is a spike, and is not remembered. Of a spike that lasts only the first step counts.
        """
        if not is_sound(loss, norm):
            return True
        limit = self.limit
        before, self.high = self.high, loss > limit
        self.losses = [*self.losses[1 - WINDOW :], min(loss, limit)]
        return self.high and not before

    def describe(self, loss: float, norm: float) -> str:
        """Say how the spike that has just begun departs from what was before it."""
        if is_sound(loss, norm):
            return f"the loss jumped from {self.losses[-2]:.4f} to {loss:.4f}"
        return f"the loss ({loss}) or its gradient's norm ({norm}) is not finite"


def is_sound(loss: float, norm: float) -> bool:
    """Return whether both are finite: else no step may be made by them."""
    return math.isfinite(loss) and math.isfinite(norm)
