"""Line charts as SVG, for pages that hold no HTML, such as Markdown: each a file of its own that loads nothing.

They follow the reader's light or dark, as reports do, and have a background of their own, so they are legible on either.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from lucidlm.report.page import LineChart

WIDTH, HEIGHT = 720, 400
COLOURS = 6
LETTER = 6.2
"""The width of a letter of a legend, about; a Chinese character takes two."""

STYLE = """
svg { --page: #f6f7f9; --card: #fff; --ink: #14181f; --soft: #5a6472; --grid: #e2e6ec; --accent: #2459d1; --bar: #b4bfcd;
  --s0: #2459d1; --s1: #c2570c; --s2: #0b7a55; --s3: #7d3fc7; --s4: #b42350; --s5: #0a7285;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC",
  sans-serif; font-size: 12.5px; }
@media (prefers-color-scheme: dark) { svg { --page: #0f1217; --card: #181c23; --ink: #e8ebf0; --soft: #9aa5b4;
  --grid: #2a303a; --accent: #84a9ff; --bar: #566173; --s0: #84a9ff; --s1: #f7a45c; --s2: #54d0a0; --s3: #c49bff;
  --s4: #ff87a8; --s5: #5bcbe0; } }
text { fill: var(--ink); } .soft { fill: var(--soft); font-size: 11px; } .bold { font-weight: 650; }
.middle { text-anchor: middle; } .end { text-anchor: end; } .card { fill: var(--card); stroke: var(--grid); }
.curve { fill: none; stroke-width: 2; vector-effect: non-scaling-stroke; stroke-linecap: round; }
"""


def chart_file(*charts: LineChart) -> str:
    """Return charts, one below the other, as the text of an SVG file."""
    lines = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {len(charts) * HEIGHT}" role="img">',
        f"<title>{escape('; '.join(chart.title for chart in charts))}</title>",
        f"<style>{STYLE}</style>",
        *(line for row, chart in enumerate(charts) for line in line_chart(chart, 0, row * HEIGHT, WIDTH, HEIGHT)),
        "</svg>",
    )
    return "\n".join(lines) + "\n"


def line_chart(chart: LineChart, x: float, y: float, width: float, height: float) -> Iterator[str]:
    """Yield the elements of a chart with its title, legend and axes, in a box from (x, y), in units of the picture."""
    yield from card(x, y, width, height, chart.title)
    plot, left, wide = chart.plot(), x + 50, width - 70
    at, row = x + 14, y + 48
    for number, curve in enumerate(plot.curves):
        room = 34 + sum(LETTER if ord(letter) < 0x2E80 else 2 * LETTER for letter in curve.name)
        if at + room > x + width and number:
            at, row = x + 14, row + 16
        yield f'<path d="M{at:.1f} {row - 4:.1f}h14" style="stroke:var(--s{number % COLOURS});stroke-width:3"/>'
        yield text(at + 20, row, curve.name, "soft")
        at += room
    top, bottom = row + 16, y + height - 44
    high = bottom - top
    for tick in plot.y_ticks:
        at = top + high * (1 - tick.at)
        yield f'<path d="M{left:.1f} {at:.1f}h{wide:.1f}" style="stroke:var(--grid)"/>'
        yield text(left - 6, at + 4, tick.label, "soft end")
    for tick in plot.x_ticks:
        yield text(left + wide * tick.at, bottom + 18, tick.label, "soft middle")
    yield text(left + wide, bottom + 34, chart.x_label, "soft end")
    yield f'<g transform="translate({left:.1f} {top:.1f}) scale({wide / 1000:.4f} {high / 1000:.4f})">'
    for number, curve in enumerate(plot.curves):
        stroke = f"stroke:var(--s{number % COLOURS})"
        yield f'<path class="curve" d="{curve.faint}" style="{stroke};stroke-width:1;opacity:.3"/>'
        yield f'<path class="curve" d="{curve.line}" style="{stroke}"/>'
        yield f'<path class="curve" d="{curve.dots}" style="{stroke};stroke-width:6"/>'
    yield "</g>"


def text(x: float, y: float, words: str, style: str = "") -> str:
    """Return one line of text; `style` names classes of `STYLE`."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{escape(words)}</text>'


def card(x: float, y: float, width: float, height: float, title: str = "") -> Iterator[str]:
    """Yield a box with rounded corners, and its title."""
    yield f'<rect class="card" x="{x}" y="{y}" width="{width}" height="{height}" rx="10"/>'
    if title:
        yield text(x + 14, y + 26, title, "bold")
