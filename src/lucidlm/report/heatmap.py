"""Heat maps: from labels and numbers to SVG, which HTML shows as it is and which becomes PNG where one is wanted.

Colours stand in the picture itself, on white, so it looks the same in every page, program and file. Fonts are the
reader's, so text of any script shows where its reader can read it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap
from unicodedata import east_asian_width

import numpy as np

PALE, STRONG, OPPOSITE, MISSING = (255, 255, 255), (22, 84, 168), (190, 60, 40), (238, 238, 238)
"""The colours of 0, of the largest value, of the smallest one below 0, and of what is no number."""
INK, SOFT, WHITE = "#14181f", "#5a6472", "#ffffff"
FONTS = (
    "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', 'PingFang SC', 'Microsoft YaHei', 'Noto Sans CJK SC', "
    "'WenQuanYi Micro Hei', sans-serif"
)
LETTER, SIZE, ROW, MARGIN = 7.2, 12, 22, 10
"""The width of a letter, about, and its height; the height of a row; what is free around the picture; in pixels."""
LINE = 110
"""Letters of a line above a picture."""
LONGEST = 60
"""Letters of a label that are shown."""
NUMBERED = 600
"""Most cells that show their numbers."""
HINTED = 4_000
"""Most cells that say their labels and value under the pointer."""


@dataclass(frozen=True)
class Drawing:
    """Elements of SVG in a box, in pixels."""

    width: float
    height: float
    elements: str

    def svg(self, title: str = "") -> str:
        """Return it as the text of an SVG file."""
        wide, high = math.ceil(self.width), math.ceil(self.height)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{high}" viewBox="0 0 {wide} {high}" '
            f'font-family="{FONTS}" font-size="{SIZE}" role="img"><title>{escape(title)}</title>'
            f'<rect width="100%" height="100%" fill="#fff"/>{self.elements}</svg>'
        )


def heat_map(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: np.ndarray,
    *,
    texts: Sequence[Sequence[str]] | None = None,
    limits: tuple[float, float] | None = None,
    plain: bool = False,
) -> Drawing:
    """Return numbers (rows, columns) as coloured cells with labels.

    Parameters
    ----------
    texts: what stands in each cell; None: its number, where there are not too many.
    plain: colours alone, and white cells left out: a quarter of the bytes, for where there are many.
    limits: the values of the palest and the strongest colour; None: from 0, or from the smallest if that is less, to the
        largest. Where the first is below 0, cells below it have another colour than those above, and 0 is white.
    """
    low, high = limits or _limits(values)
    names = [[_shown(name) for name in labels] for labels in (rows, columns)]
    numbers = texts is None and values.size <= NUMBERED and not plain
    cells = _numbers(values) if numbers else [[_shown(text) for text in row] for row in texts or ()]
    inside = [max((_width(row[index]) for row in cells), default=0.0) for index in range(len(columns))]
    # Labels of columns stand upright where that makes the picture much wider than its cells need.
    across = [max(_width(name), wide) + 10 for name, wide in zip(names[1], inside, strict=True)]
    upright = not texts and any(_width(name) > max(wide, 18) for name, wide in zip(names[1], inside, strict=True))
    widths = [max(wide + 8, 16) for wide in inside] if upright else across
    left = MARGIN + max(map(_width, names[0]), default=0) + 8
    top = MARGIN + 20 + (max(map(_width, names[1]), default=0) + 8 if upright else 20)
    parts = [_text(MARGIN, MARGIN + 11, title, weight="600")]
    starts = left + np.concatenate([[0.0], np.cumsum(widths)])
    for at, wide, name in zip(starts, widths, names[1], strict=False):
        middle = at + wide / 2
        if upright:
            turned = f'transform="rotate(-90 {middle:.1f} {top - 6:.1f})"'
            parts.append(_text(middle, top - 2, name, fill=SOFT, more=turned))
        else:
            parts.append(_text(middle, top - 6, name, fill=SOFT, anchor="middle"))
    for index, name in enumerate(names[0]):
        y = top + index * ROW
        parts.append(_text(left - 6, y + 15, name, fill=SOFT, anchor="end"))
        for column in range(len(columns)):
            value = float(values[index, column])
            hint = f"{rows[index]} · {columns[column]}: {value:.4g}" if values.size <= HINTED and not plain else ""
            colour = _colour(value, low, high)
            if plain and colour == WHITE:
                continue
            parts.append(_cell(starts[column], y, widths[column], colour, hint))
            if cells:
                ink = "#fff" if _strength(value, low, high) > 0.55 else INK
                parts.append(
                    _text(starts[column] + widths[column] / 2, y + 15, cells[index][column], fill=ink, anchor="middle")
                )
    width = max(starts[-1] + MARGIN, 2 * MARGIN + _width(title) * 1.1)
    return Drawing(width, top + len(rows) * ROW + MARGIN, "".join(parts))


def stack(drawings: Iterable[Drawing], lines: Sequence[str] = ()) -> Drawing:
    """Return drawings below each other, under `lines` of text."""
    parts, y, width = [], float(MARGIN), 0.0
    for number, line in enumerate(part for words in lines for part in wrap(words, LINE)):
        y += 16
        parts.append(_text(MARGIN, y, line, weight="400" if number else "600"))
        width = max(width, 2 * MARGIN + 1.1 * _width(line))
    for drawing in drawings:
        parts.append(f'<g transform="translate(0 {y:.1f})">{drawing.elements}</g>')
        y, width = y + drawing.height, max(width, drawing.width)
    return Drawing(width, y, "".join(parts))


def _limits(values: np.ndarray) -> tuple[float, float]:
    sound = values[np.isfinite(values)]
    low, high = (min(0.0, float(sound.min())), max(0.0, float(sound.max()))) if sound.size else (0.0, 1.0)
    if low < 0:
        low, high = -max(-low, high), max(-low, high)
    return low, high if high > low else low + 1.0


def _strength(value: float, low: float, high: float) -> float:
    if not math.isfinite(value):
        return 0.0
    share = value / high if value >= 0 or low >= 0 else value / low
    return min(1.0, max(0.0, (value - low) / (high - low) if low > 0 else share))


def _colour(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return "#{:02x}{:02x}{:02x}".format(*MISSING)
    strength, end = _strength(value, low, high), OPPOSITE if value < 0 else STRONG
    return "#{:02x}{:02x}{:02x}".format(*(round(a + strength * (b - a)) for a, b in zip(PALE, end, strict=True)))


def _cell(x: float, y: float, width: float, colour: str, hint: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{ROW}" fill="{colour}" stroke="#e2e6ec"'
    return f"<rect {place}><title>{escape(hint)}</title></rect>" if hint else f"<rect {place}/>"


def _text(
    x: float, y: float, words: str, *, fill: str = INK, anchor: str = "start", weight: str = "400", more: str = ""
) -> str:
    style = f'fill="{fill}" text-anchor="{anchor}" font-weight="{weight}" {more} xml:space="preserve"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'


def _numbers(values: np.ndarray) -> list[list[str]]:
    """Return numbers in few letters, all of them with as many digits behind the point."""
    sound = np.abs(values[np.isfinite(values)])
    largest = float(sound.max()) if sound.size else 0.0
    digits = 0 if largest >= 1000 else 1 if largest >= 100 else 2
    digits = 3 if 0 < largest < 0.1 else digits
    return [[f"{value:.{digits}f}" if math.isfinite(value) else "" for value in row] for row in values.tolist()]


def printable(text: str, kept: str = "") -> str:
    """Return a text with pictures of its control characters, which no SVG may hold, but for those that are `kept`."""
    return "".join(chr(0x2400 + ord(letter)) if ord(letter) < 32 and letter not in kept else letter for letter in text)


def _shown(text: str) -> str:
    """Return a label on one line, control characters as their pictures, cut where it is long."""
    line = printable(text)
    line = line if line.strip() else line.replace(" ", "␣")
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def _width(text: str) -> float:
    return LETTER * sum(1.9 if east_asian_width(letter) in "WF" else 1.0 for letter in text)
