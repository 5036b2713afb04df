"""The README's picture: the head of a run's report as one SVG, drawn from the same blocks as the page.

    python docs/draw_report.py RUN --out docs/report.svg [--lang zh]

It follows the reader's light or dark, as the report does, and has a background of its own, so it is legible on either.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from lucidlm.core.amounts import percent
from lucidlm.core.io import write_text
from lucidlm.report import svg
from lucidlm.report.files import read_run
from lucidlm.report.language import Language
from lucidlm.report.page import BarChart, Block, ConfusionMatrix, KeyFigure, KeyFigures, LineChart
from lucidlm.report.run import build_page
from lucidlm.report.svg import card, text

B = TypeVar("B", bound=Block)

WIDTH, HEIGHT = 880, 440
STYLE = f"""{svg.STYLE}
.value {{ font-size: 26px; font-weight: 700; }} .value.first {{ fill: var(--accent); }} .name {{ font-size: 11px; }}
.track {{ fill: var(--grid); }}
"""


def draw(blocks: list[Block]) -> str:
    """Return the picture: the key figures above; bars, confusion matrix and loss below."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="14" style="fill:var(--page)"/>',
        *key_figures(first(blocks, KeyFigures).figures[:2]),
        *bars(first(blocks, BarChart), x=16, y=142, width=316),
        *matrix(first(blocks, ConfusionMatrix), x=344, y=142, width=236),
        *svg.line_chart(first(blocks, LineChart), x=592, y=142, width=272, height=282),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def first(blocks: list[Block], kind: type[B]) -> B:
    return next(block for block in blocks if isinstance(block, kind))


def wrap(words: str, width: int) -> list[str]:
    """Cut a sentence into lines of about `width` letters, or half as many characters of a script without spaces."""
    return textwrap.wrap(words, width // 2 if any(ord(letter) > 0x2E80 for letter in words) else width)


def key_figures(figures: list[KeyFigure]) -> Iterator[str]:
    for number, figure in enumerate(figures):
        x = 16 + 430 * number
        yield from card(x, 16, 418, 114)
        yield text(x + 14, 50, figure.value, "value" if number else "value first")
        yield text(x + 14, 72, figure.label, "bold")
        for row, line in enumerate(wrap(figure.detail, 70)[:2]):
            yield text(x + 14, 89 + 14 * row, line, "soft")


def bars(chart: BarChart, x: float, y: float, width: float) -> Iterator[str]:
    yield from card(x, y, width, 282, chart.title)
    full = width - 28
    for number, bar in enumerate(chart.bars):
        top, left = y + 62 + 72 * number, x + 14
        colour = "accent" if bar.primary else "bar"
        yield text(left, top, bar.name, "name")
        yield text(left + full, top, percent(bar.value), "name bold end")
        yield f'<rect class="track" x="{left}" y="{top + 8}" width="{full}" height="16" rx="4"/>'
        yield (
            f'<rect x="{left}" y="{top + 8}" width="{full * bar.value:.1f}" height="16" rx="4" '
            f'style="fill:var(--{colour})"/>'
        )
        if bar.low is not None and bar.high is not None:
            low, high = left + full * bar.low, left + full * bar.high
            yield (
                f'<path d="M{low:.1f} {top + 12}v8M{high:.1f} {top + 12}v8M{low:.1f} {top + 16}H{high:.1f}" '
                'style="stroke:var(--ink);stroke-width:2"/>'
            )


def matrix(block: ConfusionMatrix, x: float, y: float, width: float) -> Iterator[str]:
    yield from card(x, y, width, 282, block.title)
    size = (width - 28) / (len(block.labels) + 0.9)
    left, top = x + 14 + 0.9 * size, y + 66
    for row, label in enumerate(block.labels):
        yield text(left + (row + 0.5) * size, top - 10, label, "soft middle")
        yield text(left - 8, top + (row + 0.5) * size + 4, label, "soft end")
        total = max(1, sum(block.counts[row]))
        for column, count in enumerate(block.counts[row]):
            a, b = left + column * size, top + row * size
            yield f'<rect class="track" x="{a:.1f}" y="{b:.1f}" width="{size - 3:.1f}" height="{size - 3:.1f}" rx="6"/>'
            yield (
                f'<rect x="{a:.1f}" y="{b:.1f}" width="{size - 3:.1f}" height="{size - 3:.1f}" rx="6" '
                f'style="fill:var(--accent);opacity:{0.45 * count / total:.2f}"/>'
            )
            yield text(a + size / 2, b + size / 2 - 1, f"{count:,}", "bold middle")
            yield text(a + size / 2, b + size / 2 + 15, percent(count / total, 0), "soft middle")
    for number, line in enumerate(wrap(block.caption, 36)):
        yield text(x + 14, y + 234 + 15 * number, line, "soft")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a directory that finetune and evaluate wrote")
    parser.add_argument("--out", type=Path, default=Path("docs/report.svg"))
    parser.add_argument("--lang", choices=("en", "zh"), default="en")
    options = parser.parse_args()
    write_text(options.out, draw(list(build_page([read_run(options.run)], Language(options.lang)).blocks)))


if __name__ == "__main__":
    main()
