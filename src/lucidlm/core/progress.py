"""Progress of long work: a bar with rate and time left on a terminal, plain lines now and then elsewhere.

All of it goes to standard error; standard output belongs to results.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")

console = Console(stderr=True, highlight=False)
"""Where everything but results is printed."""

SECONDS_BETWEEN_LINES = 15.0


def say(message: str) -> None:
    """Print a line for the person watching, on standard error; rich markup in it is not interpreted."""
    console.print(message, markup=False)


class Task:
    """One stretch of long work, used as a context manager; `advance` it as the work goes on.

    Parameters
    ----------
    label: what is being done, in a word or two.
    total: how much there is to do in `unit`s, or None when nobody knows.
    unit: what is counted, for the rate: "tokens", "documents", "MB".
    """

    def __init__(self, label: str, total: float | None = None, unit: str = "") -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done, self.note = 0.0, ""
        self._start = self._last = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> Task:
        self._start = self._last = time.monotonic()
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.percentage:>3.0f}%" if self.total else "{task.fields[count]}"),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
            )
            self._bar.start()
            self._id = self._bar.add_task(self.label, total=self.total, rate="", note="", count="")
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None:
            say(self._line())

    def advance(self, amount: float = 1, note: str | None = None) -> None:
        """Count `amount` more as done; `note` is shown beside it (the loss, the file being read)."""
        self.done += amount
        if note is not None:
            self.note = note
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._id, completed=self.done, rate=self._rate(), note=self.note, count=f"{self.done:,.0f}")
        elif now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            say(self._line())

    def _rate(self) -> str:
        return f"{self.done / max(time.monotonic() - self._start, 1e-9):,.0f} {self.unit}/s"

    def _line(self) -> str:
        seconds = time.monotonic() - self._start
        count = f"{self.done:,.0f}" + (f" of {self.total:,.0f}" if self.total else "")
        left = f", {(self.total - self.done) / self.done * seconds:,.0f} s left" if self.total and 0 < self.done < self.total else ""
        return f"{self.label}: {count} {self.unit}, {self._rate()}, {seconds:,.0f} s{left}" + (f", {self.note}" if self.note else "")


def track(items: Iterable[T], label: str, total: float | None = None, unit: str = "") -> Iterator[T]:
    """Yield from `items` while showing how far it is."""
    with Task(label, total, unit) as task:
        for item in items:
            yield item
            task.advance()
