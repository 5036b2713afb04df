"""What a method of attribution returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Completeness:
    """Whether attributions sum to what they explain.

    Parameters
    ----------
    explained, total: what they should sum to, and what they do.
    tolerance: how far apart the two may be.
    steps: how many readings each attribution took; 0 where that is no matter.
    """

    explained: float
    total: float
    tolerance: float
    steps: int = 0

    @property
    def reached(self) -> bool:
        """Whether they do, within the tolerance."""
        return abs(self.total - self.explained) <= self.tolerance


@dataclass(frozen=True)
class Attribution:
    """Each piece's share (pieces,) float64 in a prediction; the sum means something only where `completeness` is given."""

    values: np.ndarray
    completeness: Completeness | None = None
