"""A report page: plain blocks in, one self-contained HTML file out.

A page is a list of blocks that know nothing of HTML; the template draws each kind. The file loads nothing from anywhere
(a content security policy holds the browser to that), every text in it is escaped, and it follows the reader's choice
of light or dark.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
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
    """Starts a part of the page."""

    title: str
    lead: str = ""


@dataclass(frozen=True)
class KeyFigure:
    """A number to remember, what it is, and what it has to be read with."""

    value: str
    label: str
    detail: str = ""


@dataclass(frozen=True)
class KeyFigures:
    """The numbers to remember."""

    figures: Sequence[KeyFigure]


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Parameters
    ----------
    smooth: draw it faintly, and its running mean over it; for what jumps from step to step.
    marks: put a dot at each value; for what is measured now and then.
    intervals: the lower and the upper ends of the values' intervals, drawn as faint bars.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    smooth: bool = False
    marks: bool = False
    intervals: Intervals | None = None


@dataclass(frozen=True)
class LineChart:
    """Curves over a shared axis; values that are not finite are left out. `log` is the scale upwards, `log_x` along."""

    title: str
    series: Sequence[Series]
    x_label: str
    y_label: str
    log: bool = False
    caption: str = ""
    log_x: bool = False

    def plot(self) -> Plot:
        """Return the geometry that the template draws."""
        lines = [(line.name, line.x, line.y, line.smooth, line.marks) for line in self.series]
        return draw(lines, log=self.log, log_x=self.log_x, intervals=[line.intervals for line in self.series])


@dataclass(frozen=True)
class Bar:
    """A share between 0 and 1, with its interval if it has one."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    primary: bool = False


@dataclass(frozen=True)
class BarChart:
    """Shares beside each other, as bars from nought to 100 %, with whiskers for their intervals."""

    title: str
    bars: Sequence[Bar]
    caption: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a table; `key` is what its column is sorted by, and makes it a number for the eye."""

    text: str
    key: float | None = None


@dataclass(frozen=True)
class Table:
    """A table that is sorted by clicking on the head of a column; a `filtered` one has a field to search its rows."""

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
    """Texts that a model wrote: the prompt it was given, and what it went on with."""

    title: str
    samples: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Facts:
    """Names and values; a long list can be `folded` away."""

    title: str
    facts: Sequence[tuple[str, str]]
    folded: bool = False


Block = Heading | KeyFigures | LineChart | BarChart | Table | ConfusionMatrix | Samples | Facts


@dataclass(frozen=True)
class Page:
    """A page: its title, a sentence that says what it shows, and its blocks in order."""

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
    # Escapes in every file but the script and the style, which hold no text of ours or of the user's.
    environment = Environment(
        loader=PackageLoader("lucidlm.report"),
        autoescape=lambda name: name is None or name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["kind"] = lambda block, name: type(block).__name__ == name
    return environment
