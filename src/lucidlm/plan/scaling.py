"""What a larger budget will reach: a curve through the losses of a few small runs, and how far it can be trusted.

The loss falls as a power of what is spent, down to a floor: L(C) = E + A * C^-a (Hoffmann et al. 2022, arXiv:2203.15556, for
runs whose model grows with their budget). That holds for runs that differ in nothing but the budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lucidlm.core.errors import InputError
from lucidlm.core.seeds import numpy_generator

FEWEST = 4
"""Runs: the curve has three numbers of its own."""

POWERS = np.linspace(0.02, 1.0, 99)
"""The powers that are tried; published ones lie between 0.05 and 0.5."""

RESAMPLED, INTERVAL = 500, 0.9
"""Curves through resampled residuals, and the share of them that an interval holds."""


@dataclass(frozen=True)
class Prediction:
    """A loss, in nats a token, and the interval that 90 % of resampled curves give it."""

    loss: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.loss:.4f} ({self.low:.4f} to {self.high:.4f})"


class ScalingLaw:
    """L(C) = floor + factor * C^-power, fitted to runs.

    Parameters
    ----------
    budgets: of each run: FLOPs, tokens, or whatever all of them are compared by.
    losses: what each reached on held-out data, in nats a token.

    Raises
    ------
    InputError: there are fewer than four budgets, or values that no run can have.
    """

    def __init__(self, budgets: Sequence[float], losses: Sequence[float], seed: int = 0) -> None:
        x, y = np.asarray(budgets, dtype=np.float64), np.asarray(losses, dtype=np.float64)
        if x.shape != y.shape or x.ndim != 1:
            raise InputError(f"{x.size} budgets and {y.size} losses do not belong together", where="losses")
        if not (np.isfinite(x).all() and np.isfinite(y).all() and (x > 0).all() and (y > 0).all()):
            raise InputError("budgets and losses have to be positive numbers", where="budgets, losses")
        if len(np.unique(x)) < FEWEST:
            what = f"{len(np.unique(x))} budgets are too few for a curve of three numbers"
            raise InputError(what, where="budgets", fix=f"Run {FEWEST} of them at least, each some times the last.")
        self._unit = float(np.exp(np.log(x).mean()))  # so that powers of it stay near one
        x = x / self._unit
        (self._curve,) = _fit(x, y[None])
        # What the fit leaves is smaller than the runs' own scatter, by the three numbers that it was free to choose.
        residuals = (y - _values(self._curve, x)) * np.sqrt(len(x) / max(1, len(x) - 3))
        draw = numpy_generator(seed, "scaling law")
        fitted = _values(self._curve, x)
        self._others = _fit(x, fitted + draw.choice(residuals, (RESAMPLED, len(x))))

    @property
    def floor(self) -> float:
        """The loss that no budget brings below."""
        return self._curve[0]

    @property
    def power(self) -> float:
        """By which power of the budget the rest falls."""
        return self._curve[2]

    def predict(self, budget: float) -> Prediction:
        """Return the loss that a run of this budget will reach.

        Raises
        ------
        InputError: the budget is not a positive number.
        """
        if not (np.isfinite(budget) and budget > 0):
            raise InputError(f"{budget} is no budget", where="budget", fix="Pass a positive number.")
        x = np.array([budget / self._unit])
        found = np.array([_values(curve, x)[0] for curve in self._others])
        low, high = np.quantile(found, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
        loss = float(_values(self._curve, x)[0])
        return Prediction(loss, min(loss, float(low)), max(loss, float(high)))

    @property
    def formula(self) -> str:
        """The curve, written out."""
        floor, factor, power = self._curve
        return f"loss = {floor:.4g} + {factor:.4g} * (budget / {self._unit:.3g})^-{power:.3g}"

    def to_dict(self) -> dict[str, float]:
        """Return the curve's numbers: loss = floor + factor * (budget / unit)^-power."""
        floor, factor, power = self._curve
        return {"floor": floor, "factor": factor, "power": power, "unit": self._unit}

    def __repr__(self) -> str:
        return f"ScalingLaw({self.formula})"


Curve = tuple[float, float, float]
"""Floor, factor and power."""


def _fit(x: NDArray[np.float64], losses: NDArray[np.float64]) -> list[Curve]:
    """Return the curve of least squares for each row of `losses` (rows, runs), at budgets `x` (runs,).

    For each power the best floor and factor are known, neither being negative; of all powers the best is taken.
    """
    basis = x[None] ** -POWERS[:, None]  # (powers, runs)
    b, y = basis.mean(1), losses.mean(1)
    apart = basis - b[:, None]
    factor = np.maximum(0.0, losses @ apart.T / np.square(apart).sum(1))  # (rows, powers)
    floor = y[:, None] - factor * b
    factor = np.where(floor < 0, losses @ basis.T / np.square(basis).sum(1), factor)
    floor = np.maximum(0.0, floor)
    left = losses[:, None] - floor[..., None] - factor[..., None] * basis  # (rows, powers, runs)
    best = np.square(left).sum(-1).argmin(1)
    return [(float(floor[row, at]), float(factor[row, at]), float(POWERS[at])) for row, at in enumerate(best)]


def _values(curve: Curve, x: NDArray[np.float64]) -> NDArray[np.float64]:
    floor, factor, power = curve
    return floor + factor * x**-power
