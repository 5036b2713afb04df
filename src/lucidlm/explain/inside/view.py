"""What a look inside returns: labelled numbers that can be drawn, the figures behind them, and how far to trust them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lucidlm.metrics.statistics import Estimate, estimate, ratio


@dataclass(frozen=True)
class Grid:
    """Numbers with labelled rows and columns.

    Parameters
    ----------
    values: (rows, columns) float64; NaN where there is none.
    texts: what stands in each cell, if that is not the number.
    limits: the values of the palest and the strongest colour; None: 0, or the smallest where that is below it, and the
        largest. If the first is below 0, colours go both ways from 0.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: np.ndarray
    texts: tuple[tuple[str, ...], ...] | None = None
    limits: tuple[float, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON, in which what is no number is null."""
        values = [[value if math.isfinite(value) else None for value in row] for row in self.values.tolist()]
        texts = {} if self.texts is None else {"texts": [list(row) for row in self.texts]}
        return {"title": self.title, "rows": list(self.rows), "columns": list(self.columns), "values": values, **texts}

    def strongest(self, count: int) -> list[tuple[str, str, float]]:
        """Return row, column and value of the `count` cells farthest from 0, the farthest first."""
        flat = np.nan_to_num(np.abs(self.values)).ravel()
        order = np.argsort(-flat, kind="stable")[:count]
        places = [divmod(int(index), len(self.columns)) for index in order]
        return [(self.rows[row], self.columns[column], float(self.values[row, column])) for row, column in places]


@dataclass(frozen=True)
class View:
    """One look inside a model.

    Parameters
    ----------
    name: what the command line calls it.
    title: what is shown, of which text.
    grids: the numbers.
    verdict: in sentences, how far they can be trusted.
    figures: what the verdict says, as values.
    """

    name: str
    title: str
    grids: tuple[Grid, ...]
    verdict: tuple[str, ...]
    figures: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {
            "view": self.name,
            "title": self.title,
            "figures": self.figures,
            "verdict": list(self.verdict),
            "grids": [grid.as_dict() for grid in self.grids],
        }


def mean(values: np.ndarray) -> Estimate:
    """Return the mean of values (n,) with its bootstrap interval."""
    return estimate(ratio, np.stack([values, np.ones_like(values)], axis=1))


def shown(found: Estimate, digits: int = 3) -> str:
    """Return a figure with its interval as the views write them."""
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"
