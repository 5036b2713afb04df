"""A report page: plain blocks in, one self-contained HTML file out.

A page is a list of blocks, which contain no HTML; the template renders each kind. The file loads nothing (enforced by a
content security policy), all text in it is escaped, and it follows the browser's light or dark mode.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from lucidlm.core.amounts import percent
from lucidlm.core.io import write_text
from lucidlm.report.charts import Intervals, Plot, draw
from lucidlm.report.language import Language


@dataclass(frozen=True)
class Heading:
    """The heading of a section."""

    title: str
    lead: str = ""


@dataclass(frozen=True)
class KeyFigure:
    """A headline number: its value, its name, and a detail such as the interval."""

    value: str
    label: str
    detail: str = ""


@dataclass(frozen=True)
class KeyFigures:
    """The headline numbers."""

    figures: Sequence[KeyFigure]


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Parameters
    ----------
    smooth: draw the running mean, and the values faintly behind it; for noisy values such as the training loss.
    marks: draw a dot at each value; for values measured now and then.
    intervals: the lower and upper ends of the values' intervals, drawn as faint bars.
    scattered: the values are of events, which no line joins; see `draw`.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    smooth: bool = False
    marks: bool = False
    intervals: Intervals | None = None
    scattered: bool = False


@dataclass(frozen=True)
class LineChart:
    """Lines on shared axes; values that are not finite are left out. `log` makes y logarithmic, `log_x` x."""

    title: str
    series: Sequence[Series]
    x_label: str
    y_label: str
    log: bool = False
    caption: str = ""
    log_x: bool = False

    def plot(self) -> Plot:
        """Return the geometry for the template."""
        lines = [(line.name, line.x, line.y, line.smooth, line.marks) for line in self.series]
        return draw(
            lines,
            log=self.log,
            log_x=self.log_x,
            intervals=[line.intervals for line in self.series],
            scattered=[number for number, line in enumerate(self.series) if line.scattered],
        )


@dataclass(frozen=True)
class Bar:
    """A share between 0 and 1, with its interval if there is one; `primary` highlights it."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    primary: bool = False


@dataclass(frozen=True)
class BarChart:
    """Shares as bars from 0 to 100 %, with whiskers for their intervals."""

    title: str
    bars: Sequence[Bar]
    caption: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a table; `key` is the sort key, and right-aligns the cell as a number."""

    text: str
    key: float | None = None


@dataclass(frozen=True)
class Table:
    """A table that can be sorted by clicking a column head; a `filtered` one has a search field."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    filtered: bool = False


@dataclass(frozen=True)
class ConfusionMatrix:
    """How often the class of each row was predicted as that of each column."""

    title: str
    labels: Sequence[str]
    counts: Sequence[Sequence[int]]
    caption: str = ""


@dataclass(frozen=True)
class Samples:
    """Generated texts: pairs of prompt and continuation."""

    title: str
    samples: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Facts:
    """Names and values; a long list can be `folded` (collapsed)."""

    title: str
    facts: Sequence[tuple[str, str]]
    folded: bool = False


@dataclass(frozen=True)
class Drawn:
    """A picture: SVG of our own making, in which all text is escaped (see `lucidlm.report.heatmap`)."""

    title: str
    svg: str


@dataclass(frozen=True)
class Notes:
    """Sentences, a paragraph each."""

    title: str
    lines: Sequence[str]


@dataclass(frozen=True)
class ColouredText:
    """A text in pieces, each with a value: what is above 0 in one colour, what is below in another, by how far it is.

    Parameters
    ----------
    marked: the pieces that are underlined.
    scale: the value whose colour is the strongest; None: the largest.
    """

    title: str
    pieces: Sequence[tuple[str, float]]
    caption: str = ""
    marked: Collection[int] = ()
    scale: float | None = None

    @property
    def largest(self) -> float:
        """The value whose colour is the strongest."""
        return self.scale or max((abs(value) for _, value in self.pieces), default=0.0) or 1.0


@dataclass(frozen=True)
class HeatMap:
    """Values of rows by columns, coloured as `ColouredText`, each row by its own largest; a row may end early."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
    caption: str = ""


Block = (
    Heading
    | KeyFigures
    | LineChart
    | BarChart
    | Table
    | ConfusionMatrix
    | Samples
    | Facts
    | Drawn
    | Notes
    | ColouredText
    | HeatMap
)


@dataclass(frozen=True)
class Page:
    """A page: title, lead sentence, and blocks in order."""

    title: str
    lead: str
    blocks: Sequence[Block]
    footer: str = ""

    def render(self, language: Language) -> str:
        """Return the page as HTML."""
        templates = _templates()
        script, style = (templates.get_template(name).render() for name in ("report.js", "report.css"))
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        return templates.get_template("report.html").render(
            page=self,
            language=language,
            t=language.text,
            percent=percent,
            style=style,
            script=script,
            script_hash=digest,
        )

    def write(self, path: str | Path, language: Language) -> None:
        """Write the page to `path`, whole or not at all."""
        write_text(path, self.render(language))


@cache
def _templates() -> Environment:
    # Escaping is on for all templates but the script and the style sheet, into which no text is inserted.
    environment = Environment(
        loader=PackageLoader("lucidlm.report"),
        autoescape=lambda name: name is None or name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["kind"] = lambda block, name: type(block).__name__ == name
    return environment
