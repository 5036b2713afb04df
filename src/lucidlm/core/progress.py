"""Progress of long work: a bar with rate and time left on a terminal or in a notebook, plain lines now and then elsewhere.

All of it goes to standard error; standard output belongs to results.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from types import TracebackType
from typing import ClassVar, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")

console = Console(stderr=True, highlight=False)
"""Where everything but results is printed."""

SECONDS_BETWEEN_LINES = 15.0


def log(message: str) -> None:
    """Print a line for the person watching, on standard error; rich markup in it is not interpreted."""
    console.print(message, markup=False, soft_wrap=True)


def draws_bars() -> bool:
    """Return whether bars can be drawn: on a terminal, and in a notebook that has the widgets rich draws them with."""
    return find_spec("ipywidgets") is not None if console.is_jupyter else console.is_terminal


class ProgressBar:
    """One stretch of long work, used as a context manager; `advance` it as the work goes on.

    Parameters
    ----------
    label: what is being done, in a word or two.
    total: how much there is to do in `unit`s, or None when nobody knows; it may be set again as estimates get better.
    unit: what is counted, for the rate: "tokens", "documents", "MB".
    done: how much was done before, by a run that this one goes on from.

    Of tasks within tasks the outer one has the bar; the inner ones print lines.
    """

    _bar_is_shown: ClassVar[bool] = False

    def __init__(self, label: str, total: float | None = None, unit: str = "", done: float = 0.0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done, self.note = done, ""
        self._before = done
        self._start = self._last = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> ProgressBar:
        self._start = self._last = time.monotonic()
        if not ProgressBar._bar_is_shown and draws_bars():
            ProgressBar._bar_is_shown = True
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[count]}"),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
            )
            self._bar.start()
            self._id = self._bar.add_task(self.label, total=self.total, rate="", note="", count="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            ProgressBar._bar_is_shown = False
        elif kind is None:
            log(self._line())

    def advance(self, amount: float = 1, note: str | None = None) -> None:
        """Count `amount` more as done; `note` is shown beside it (the loss, the file being read)."""
        self.done += amount
        if note is not None:
            self.note = note
        now = time.monotonic()
        if self._bar is not None:
            count = f"{self.done / self.total:4.0%}" if self.total else f"{self.done:,.0f}"
            self._bar.update(
                self._id, total=self.total, completed=self.done, rate=self._rate(), note=self.note, count=count
            )
        elif now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            log(self._line())

    def _rate(self) -> str:
        speed = (self.done - self._before) / max(time.monotonic() - self._start, 1e-9)
        return f"{speed:,.0f} {self.unit}/s" if speed >= 10 else f"{speed:.2g} {self.unit}/s"

    def _line(self) -> str:
        seconds, here = time.monotonic() - self._start, self.done - self._before
        parts = [f"{self.done:,.0f}" + (f" of {self.total:,.0f}" if self.total else "") + f" {self.unit}", self._rate()]
        parts.append(f"{seconds:,.0f} s")
        if self.total and here > 0 and self.done < self.total:
            parts.append(f"{(self.total - self.done) / here * seconds:,.0f} s left")
        return f"{self.label}: " + ", ".join([*parts, self.note] if self.note else parts)


def track(items: Iterable[T], label: str, total: float | None = None, unit: str = "") -> Iterator[T]:
    """Yield from `items` while showing how far it is."""
    with ProgressBar(label, total, unit) as task:
        for item in items:
            yield item
            task.advance()
