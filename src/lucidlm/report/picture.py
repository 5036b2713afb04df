"""PNG: what pages show as SVG, drawn with a font that has all of its letters, or refused."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from html import escape, unescape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lucidlm.core.extras import require_package
from lucidlm.core.io import atomic_path
from lucidlm.explain.explanation import Explanation
from lucidlm.explain.generation import GenerationExplanation
from lucidlm.report.fonts import font_for
from lucidlm.report.heatmap import Drawing, heat_map, printable

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

SCALE = 2
"""Pixels of a picture for one of the SVG."""
WIDTH, MARGIN, SIZE, LINE = 600, 20, 14, 24
FOR, AGAINST, PAPER, INK = (0, 140, 60), (210, 40, 40), (255, 255, 255), "#14181f"


def write_png(svg: str, out: Path) -> None:
    """Write a picture, `SCALE` pixels for one of the SVG.

    Raises
    ------
    InputError: a package that draws is not installed, or no font of the system has the text's characters.
    """
    require_package("resvg_py", "explain", name="resvg-py", where="--out", instead="write .html")
    shown = "".join(re.findall(r"<text[^>]*>([^<]*)", svg))
    font = font_for(unescape(shown), SIZE)
    import resvg_py  # pyright: ignore[reportMissingImports]

    with tempfile.TemporaryDirectory() as folder:
        family, _ = font.getname()
        drawn = resvg_py.svg_to_bytes(
            svg_string=svg,
            zoom=SCALE,
            font_files=[str(_file_of(font, Path(folder)))],
            skip_system_fonts=True,
            font_family=family,
            sans_serif_family=family,
        )
    with atomic_path(out) as path:
        path.write_bytes(drawn)


def explanation_drawing(found: Explanation | GenerationExplanation) -> Drawing:
    """Return the picture of an explanation: the coloured text, or the heat map of each written piece on those before it.

    Raises
    ------
    InputError: Pillow is not installed, or no font of the system has the text's characters.
    """
    if isinstance(found, Explanation):
        pieces = [printable(text, kept="\n") for text, _ in found.pieces]
        return _coloured(found, pieces, font_for("".join(pieces), SIZE))
    values = np.full((len(found.attributions), len(found.pieces) - 1), np.nan)
    for row, given in zip(values, found.attributions, strict=True):
        row[: len(given)] = np.array(given) / (max(map(abs, given)) or 1.0)
    return heat_map("", found.pieces[found.start :], found.pieces[:-1], values, plain=True)


def _file_of(font: FreeTypeFont, folder: Path) -> Path:
    """Return the file of a font; Pillow's own is none, so it is written to `folder`."""
    if isinstance(font.path, str | Path):
        return Path(font.path)
    path = folder / "font.ttf"
    path.write_bytes(font.font_bytes)
    return path


def _coloured(found: Explanation, pieces: Sequence[str], font: FreeTypeFont) -> Drawing:
    values = [value for _, value in found.pieces]
    largest = max(map(abs, values)) or 1.0
    parts, x, y = [], float(MARGIN), MARGIN
    for place, (piece, value) in enumerate(zip(pieces, values, strict=True)):
        if place == found.passage:
            x, y = float(MARGIN), y + 2 * LINE
        for run in _runs(piece):
            width = font.getlength(run)
            if x + width > WIDTH - MARGIN or "\n" in run:
                x, y = float(MARGIN), y + LINE
                run = run.lstrip()
                width = font.getlength(run)
            parts.append(_marked(x, y, width, run, _shade(value / largest), place in found.held))
            x += width
    return Drawing(WIDTH, y + LINE + MARGIN, "".join(parts))


def _runs(piece: str) -> list[str]:
    """Return where a piece may be broken: before each word, and around characters that are words."""
    runs = [""]
    for letter in piece:
        if runs[-1] and (letter.isspace() or ord(letter) >= 0x2E80):
            runs.append("")
        runs[-1] += letter
    return runs


def _marked(x: float, y: float, width: float, run: str, colour: str, held: bool) -> str:
    """Return words on their colour, underlined where no check can delete them."""
    line = f'<rect x="{x:.1f}" y="{y + LINE - 5}" width="{width:.1f}" height="1.5" fill="{INK}"/>' if held else ""
    return (
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{LINE - 4}" fill="{colour}"/>'
        f'<text x="{x:.1f}" y="{y + 15}" font-size="{SIZE}" fill="{INK}" xml:space="preserve">{escape(run)}</text>{line}'
    )


def _shade(value: float) -> str:
    """Return the colour of an attribution in [-1, 1], which ink can be read on."""
    strength, colour = 0.6 * abs(value), FOR if value > 0 else AGAINST
    return "#{:02x}{:02x}{:02x}".format(*(round(p + (c - p) * strength) for p, c in zip(PAPER, colour, strict=True)))
