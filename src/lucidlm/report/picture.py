"""Explanations as PNG, drawn by Pillow with the system's fonts: a fraction of what a plotting library brings along."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lucidlm.core.errors import InputError
from lucidlm.core.io import atomic_path
from lucidlm.explain.explanation import Explanation
from lucidlm.explain.generation import GenerationExplanation

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

WIDTH, MARGIN, SIZE, LINE = 1200, 40, 28, 48
CELL = 34
FOR, AGAINST, PAPER, INK = (0, 140, 60), (210, 40, 40), (255, 255, 255), (20, 24, 31)

FONT_FOLDERS = {
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": (r"%WINDIR%\Fonts", r"%LOCALAPPDATA%\Microsoft\Windows\Fonts"),
}
UNIX_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts")


def write_picture(found: Explanation | GenerationExplanation, out: Path) -> None:
    """Draw an explanation: the coloured text, or the token × token heat map.

    Raises
    ------
    InputError: Pillow is not installed, or no font of the system has the text's characters.
    """
    if importlib.util.find_spec("PIL") is None:
        fix = "Install it (pip install 'lucidlm[explain]'), or write .html."
        raise InputError("Pillow, which draws PNG, is not installed", where="--out", fix=fix)
    texts = [text for text, _ in found.pieces] if isinstance(found, Explanation) else found.pieces
    font = font_for("".join(texts))
    picture = _text(found, font) if isinstance(found, Explanation) else _heat_map(found, font)
    with atomic_path(out) as path:
        picture.save(path, format="PNG")


def font_for(text: str) -> FreeTypeFont:
    """Return a font that has all characters of `text`: Pillow's own, or the first of the system's by name.

    Raises
    ------
    InputError: there is none.
    """
    from PIL import ImageFont

    needed = {letter for letter in text if not letter.isspace()}
    own = ImageFont.load_default(SIZE)
    if isinstance(own, ImageFont.FreeTypeFont) and _has(own, needed):
        return own
    for path in _font_files():
        try:
            font = ImageFont.truetype(path, SIZE)
        except OSError:
            continue
        if _has(font, needed):
            return font
    raise InputError(
        "no font of this system has all characters of the text",
        where="--out",
        fix="Install one (Noto Sans CJK for Chinese, say), or write .html, which the reader's browser has fonts for.",
    )


def _has(font: FreeTypeFont, letters: Iterable[str]) -> bool:
    """Return whether a font has a picture of its own for each of `letters`: what it lacks looks like U+FFFF."""

    def drawn(letter: str) -> bytes:
        mask: Any = font.getmask(letter)  # Pillow's types do not say that it is one of bytes
        return bytes(mask)

    missing = drawn("\uffff")
    return all(drawn(letter) != missing for letter in letters)


@cache
def _font_files() -> list[Path]:
    folders = [Path(os.path.expandvars(name)).expanduser() for name in FONT_FOLDERS.get(sys.platform, UNIX_FOLDERS)]
    return sorted(
        path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in (".ttf", ".otf", ".ttc")
    )


def _shade(value: float, largest: float) -> tuple[int, int, int]:
    strength, colour = 0.6 * abs(value) / (largest or 1.0), FOR if value > 0 else AGAINST
    red, green, blue = (round(p + (c - p) * strength) for p, c in zip(PAPER, colour, strict=True))
    return red, green, blue


def _text(found: Explanation, font: FreeTypeFont) -> Any:
    from PIL import Image, ImageDraw

    largest = max(abs(value) for _, value in found.pieces)
    boxes, x, y = [], float(MARGIN), MARGIN
    for place, (piece, value) in enumerate(found.pieces):
        if place == found.passage:
            x, y = float(MARGIN), y + 2 * LINE
        for letter in _runs(piece):
            width = font.getlength(letter)
            if x + width > WIDTH - MARGIN or "\n" in letter:
                x, y = float(MARGIN), y + LINE
                letter = letter.lstrip()
                width = font.getlength(letter)
            boxes.append((x, y, width, letter, value, place in found.held))
            x += width
    picture = Image.new("RGB", (WIDTH, y + LINE + MARGIN), PAPER)
    draw = ImageDraw.Draw(picture)
    for x, y, width, letter, value, held in boxes:
        draw.rectangle((x, y, x + width, y + LINE - 8), fill=_shade(value, largest))
        draw.text((x, y + 2), letter, font=font, fill=INK)
        if held:
            draw.line((x, y + LINE - 9, x + width, y + LINE - 9), fill=INK, width=3)
    return picture


def _runs(piece: str) -> list[str]:
    """Return where a piece may be broken: before each word, and around characters that are words."""
    runs = [""]
    for letter in piece:
        if runs[-1] and (letter.isspace() or ord(letter) >= 0x2E80):
            runs.append("")
        runs[-1] += letter
    return runs


def _heat_map(found: GenerationExplanation, font: FreeTypeFont) -> Any:
    from PIL import Image, ImageDraw

    rows, columns = found.pieces[found.start :], found.pieces[:-1]
    longest = int(max(font.getlength(piece.strip()) for piece in found.pieces)) + 12
    picture = Image.new(
        "RGB", (2 * MARGIN + longest + CELL * len(columns), 2 * MARGIN + longest + CELL * len(rows)), PAPER
    )
    draw = ImageDraw.Draw(picture)
    for index, piece in enumerate(columns):
        label = Image.new("RGB", (longest, CELL), PAPER)
        ImageDraw.Draw(label).text((0, 0), piece.strip(), font=font, fill=INK)
        picture.paste(label.rotate(90, expand=True), (MARGIN + longest + CELL * index, MARGIN))
    for index, (piece, values) in enumerate(zip(rows, found.attributions, strict=True)):
        top, largest = MARGIN + longest + CELL * index, max(map(abs, values))
        draw.text((MARGIN + longest - 10, top), piece.strip(), font=font, fill=INK, anchor="ra")
        for place, value in enumerate(values):
            left = MARGIN + longest + CELL * place
            draw.rectangle((left, top, left + CELL - 2, top + CELL - 2), fill=_shade(value, largest))
    return picture
