"""Small pieces of HTML for notebooks: complete in themselves, every text in them escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote


def table(rows: Sequence[Mapping[str, Any]], caption: str) -> str:
    """Return rows, whose keys name the columns, as a table; numbers stand on the right."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(_cell(row.get(name)) for name in columns)}</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def link(path: Path, text: str) -> str:
    """Return a link to a file, relative where the path is."""
    return f'<p><a href="{escape(quote(path.as_posix()))}" target="_blank">{escape(text)}</a></p>'


def paragraphs(lines: Iterable[str]) -> str:
    """Return each line as a paragraph."""
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def coloured(pieces: Sequence[tuple[str, float]], second: int | None = None) -> str:
    """Return a text in pieces: green where the value is above 0, red where it is below, stronger where it is larger.

    Parameters
    ----------
    second: which piece begins another paragraph.
    """
    largest = max((abs(value) for _, value in pieces), default=0.0) or 1.0
    spans = []
    for place, (text, value) in enumerate(pieces):
        if place == second:
            spans.append("<br><br>")
        colour = "0,140,60" if value > 0 else "210,40,40"
        shade = f"rgba({colour},{0.6 * abs(value) / largest:.2f})"
        spans.append(f'<span style="background:{shade}" title="{value:+.4f}">{escape(text)}</span>')
    return f'<p style="white-space:pre-wrap;line-height:1.8">{"".join(spans)}</p>'


def curve(lines: Mapping[str, Sequence[tuple[float, float]]], caption: str) -> str:
    """Return lines through points (x, y), x above 0 on a logarithmic scale, as a small picture with its legend."""
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    left, right = (f(math.log(x) for x, _ in points) for f in (min, max))
    low, high = (f(y for _, y in points) for f in (min, max))

    def place(x: float, y: float) -> str:
        across = (math.log(x) - left) / (right - left or 1.0)
        return f"{10 + 380 * across:.1f},{150 - 140 * (y - low) / (high - low or 1.0):.1f}"

    colours = ("#1b6ca8", "#c8553d", "#6a994e", "#7b5ea7")
    drawn, names = [], []
    for index, (name, line) in enumerate(lines.items()):
        colour = colours[index % len(colours)]
        path = " ".join(place(x, y) for x, y in line)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        names.append(f'<span style="color:{colour}">{escape(name)}</span>')
    picture = f'<svg viewBox="0 0 400 160" width="400" role="img" aria-label="{escape(caption)}">{"".join(drawn)}</svg>'
    return f"<figure>{picture}<figcaption>{escape(caption)}: {' · '.join(names)}</figcaption></figure>"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f'<td style="text-align:right">{value:,.4g}</td>'
    if isinstance(value, int) and not isinstance(value, bool):
        return f'<td style="text-align:right">{value:,}</td>'
    return f"<td>{escape('' if value is None else str(value))}</td>"
