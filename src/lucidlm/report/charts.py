"""The geometry of line charts: points and axis ticks.

Positions are fractions of the plot, from its lower left corner. Lines are SVG without text, stretched to any width; ticks
and labels are HTML beside it, so they stay sharp and legible on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

POINTS = 400
"""Longer lines are thinned to about this many points."""
EDGE = 0.98
"""How high a dot may lie that is not to be cut by the upper edge of its plot."""


@dataclass(frozen=True)
class Tick:
    """A tick's position along the axis, from 0 to 1, and its label."""

    at: float
    label: str


@dataclass(frozen=True)
class PlottedCurve:
    """A line as SVG path data in a plot 1000 wide and 1000 high; `faint` is drawn behind it, `dots` on it.

    `faint` is the line before smoothing, or the intervals of its values.
    """

    name: str
    line: str
    faint: str
    dots: str
    first: str
    last: str


@dataclass(frozen=True)
class Plot:
    """A chart, ready to be drawn."""

    curves: list[PlottedCurve]
    x_ticks: list[Tick]
    y_ticks: list[Tick]


Line = tuple[str, Sequence[float], Sequence[float], bool, bool]
"""Name, x, y, whether to smooth, whether to mark each value with a dot."""

Intervals = tuple[Sequence[float], Sequence[float]]
"""The lower and the upper ends of the intervals of a line's values."""


def draw(
    lines: Sequence[Line],
    *,
    log: bool = False,
    log_x: bool = False,
    intervals: Sequence[Intervals | None] = (),
    scattered: Collection[int] = (),
) -> Plot:
    """Return the geometry of lines on shared axes.

    Parameters
    ----------
    log, log_x: logarithmic y and x axes; values that are not positive are left out.
    intervals: of each line's values, in the order of the lines; empty: no line has any.
    scattered: which lines are dots that nothing joins. The axes are those of the others; a dot beyond them, an infinite one
        too, lies at the edge.
    """
    kept, whiskers, dots = [], [], []
    for number, ((name, x, y, smooth, marks), ends) in enumerate(
        zip(lines, intervals or [None] * len(lines), strict=True)
    ):
        xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
        sound = np.isfinite(xs) & np.isfinite(ys) & ((ys > 0) if log else True) & ((xs > 0) if log_x else True)
        if number in scattered and len(xs):
            dots.append((name, xs, ys))
        elif sound.any():
            xs, ys = xs[sound], ys[sound]
            whiskers.append(None if ends is None else np.asarray(ends, dtype=float)[:, sound])
            kept.append((name, xs, ys, running_mean(ys, 1 + len(ys) // 40) if smooth else ys, smooth, marks))
    if not kept:
        return Plot([], [], [])
    x_low, x_high = _range([xs for _, xs, *_ in kept], margin=0.05 if log_x else 0, log=log_x)
    # A few outliers may be cut off; a smoothed line never is.
    inner = [np.quantile(ys, [0.01, 0.99]) if smooth else ys for _, _, ys, _, smooth, _ in kept]
    inner += [ends for ends in whiskers if ends is not None]
    y_low, y_high = _range([mean for _, _, _, mean, *_ in kept] + inner, margin=0.05, log=log)

    def along(x: np.ndarray) -> np.ndarray:
        return (np.log(x / x_low) / math.log(x_high / x_low)) if log_x else (x - x_low) / (x_high - x_low)

    def up(y: np.ndarray) -> np.ndarray:
        return (np.log(y / y_low) / math.log(y_high / y_low)) if log else (y - y_low) / (y_high - y_low)

    curves = []
    for (name, xs, ys, mean, smooth, marks), ends in zip(kept, whiskers, strict=True):
        every = max(1, len(xs) // POINTS)
        chosen = np.unique(np.append(np.arange(0, len(xs), every), len(xs) - 1))
        extremes = _extremes(ys) if smooth else chosen[:0]
        bars = "" if ends is None else "".join(_path(along(xs[[i, i]]), up(ends[:, i])) for i in range(len(xs)))
        curves.append(
            PlottedCurve(
                name=name,
                line=_path(along(xs[chosen]), up(mean[chosen])),
                faint=bars or _path(along(xs[extremes]), up(ys[extremes])),
                dots="".join(f"M{_point(a, u)}h0" for a, u in zip(along(xs), up(ys), strict=True)) if marks else "",
                first=short(ys[0]),
                last=short(mean[-1]),
            )
        )
    for name, xs, ys in dots:
        where = zip(along(xs.clip(x_low, x_high)), up(ys.clip(y_low, y_high)).clip(0, EDGE), strict=True)
        points = "".join(f"M{_point(a, u)}h0" for a, u in where)
        curves.append(PlottedCurve(name, "", "", points, short(ys[0]), short(ys[-1])))
    steps = log_ticks(x_low, x_high) if log_x else even_ticks(x_low, x_high)
    x_ticks = [Tick(float(along(np.array(tick))), short(tick)) for tick in steps]
    ticks = log_ticks(y_low, y_high) if log else even_ticks(y_low, y_high)
    return Plot(curves, x_ticks, [Tick(float(up(np.array(tick))), short(tick)) for tick in ticks])


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Return the centred running mean over `width` values, fewer at the ends. Maps (n,) to (n,)."""
    window = np.ones(width)
    return np.convolve(values, window, "same") / np.convolve(np.ones(len(values)), window, "same")


def even_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers from `low` to `high`, one, two or five times a power of ten apart."""
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    # Rounded, so that 3 × 0.1 is shown as 0.3.
    digits = max(0, 1 - math.floor(math.log10(step)))
    return [round(n * step, digits) for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten from `low` to `high`; only the powers if that is too many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1,)):
        ticks = [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]
        if len(ticks) <= 6:
            break
    return ticks if len(ticks) > 1 else [low, high]


def short(value: float) -> str:
    """Format a number briefly: 0.0031, 3.14, 250, 12.5k, 3M."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if suffix == 'k' else size):.4g}{suffix}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _range(lines: Sequence[np.ndarray], *, margin: float, log: bool = False) -> tuple[float, float]:
    low, high = float(min(line.min() for line in lines)), float(max(line.max() for line in lines))
    if log:
        return low / (1 + margin), high * (1 + margin)
    margin *= high - low
    if high == low:
        margin = abs(high) * 0.1 or 1.0
    # An axis that comes near zero starts at zero.
    return 0.0 if 0 <= low < 0.3 * high else low - margin, high + margin


def _extremes(values: np.ndarray) -> np.ndarray:
    """Return the indices of the smallest and largest value in each of `POINTS` stretches, so that no spike gets lost."""
    stretches = np.array_split(np.arange(len(values)), min(len(values), POINTS))
    ends = [where[pick(values[where])] for where in stretches for pick in (np.argmin, np.argmax)]
    return np.unique(ends)


def _path(along: np.ndarray, up: np.ndarray) -> str:
    points = [_point(a, u) for a, u in zip(along, up, strict=True)]
    return "M" + "L".join(points) if points else ""


def _point(along: float, up: float) -> str:
    return f"{1000 * along:.1f} {1000 * (1 - up):.1f}"
