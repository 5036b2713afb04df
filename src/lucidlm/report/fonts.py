"""Fonts for pictures: a picture has to bring its letters along, and a letter without a font would be a box or nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lucidlm.core.errors import InputError
from lucidlm.core.extras import require_package

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

FONT_FOLDERS = {
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": (r"%WINDIR%\Fonts", r"%LOCALAPPDATA%\Microsoft\Windows\Fonts"),
}
UNIX_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.fonts", "~/.local/share/fonts")


def font_for(text: str, size: int) -> FreeTypeFont:
    """Return a font, `size` pixels high, that has all letters of `text`: Pillow's own, or the first of the system's.

    Raises
    ------
    InputError: Pillow is not installed, or there is none.
    """
    require_package("PIL", "explain", name="Pillow", where="--out", instead="write .html")
    from PIL import ImageFont

    # Few fonts have pictures of control characters and blanks, and a box says as much.
    needed = {letter for letter in text if not letter.isspace() and not 0x2400 <= ord(letter) < 0x2440}
    own = ImageFont.load_default(size)
    if isinstance(own, ImageFont.FreeTypeFont) and _has(own, needed):
        return own
    for path in _font_files():
        try:
            font = ImageFont.truetype(path, size)
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
