"""Runs followed while they are written: each line of a log is read once, and memory does not grow with the log."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path
from typing import Any

from lucidlm.core.errors import InputError
from lucidlm.report.files import SAMPLES
from lucidlm.report.live.find import RunState, find_runs, last_change, run_ending, run_file, run_state
from lucidlm.train.metrics_log import METRICS, parse_row, read_lines

POINTS = 1000
"""Of a curve; once there are twice as many, two become one."""
LATEST_SAMPLES = 2


class Curve:
    """The means of a figure over stretches of equal length, however long the run."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float]] = []
        """Steps and values."""
        self._stretch, self._gathered = 1, list[tuple[float, float]]()

    def add(self, step: float, value: float) -> None:
        """Take the next value."""
        self._gathered.append((step, value))
        if len(self._gathered) < self._stretch:
            return
        self.points.append(_mean(self._gathered))
        self._gathered = []
        if len(self.points) == 2 * POINTS:
            self.points = [_mean(list(pair)) for pair in zip(self.points[::2], self.points[1::2], strict=True)]
            self._stretch *= 2


class FollowedRun:
    """What has been read of one run.

    `last` has the last value of each figure, `evaluation` the last line of an evaluation, `events` how many there were of
    each kind and the step of the last; `damaged` counts lines that are none.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path
        self.state: RunState = "running"
        self.changed = 0.0
        self.samples: list[dict[str, Any]] = []
        self._begin()

    def _begin(self) -> None:
        self.training, self.validation = Curve(), Curve()
        self.last: dict[str, float] = {}
        self.evaluation: dict[str, float] = {}
        self.events: dict[str, tuple[int, float]] = {}
        self.damaged = 0
        self._file, self._read = 0, 0

    def read(self) -> None:
        """Read what is new; all of it where a run that went on, or began again, has written its log anew."""
        path = self.path / METRICS
        try:
            found = path.stat()
            if found.st_ino != self._file or found.st_size < self._read:
                self._begin()
                self._file = found.st_ino
            lines, self._read = read_lines(path, self._read)
        except OSError:  # not there yet, or about to be written anew
            return
        for line in lines:
            self._take(parse_row(line))
        self.state, self.changed = run_state(self.path), last_change(self.path)
        self.samples = _latest_samples(self.path)

    @property
    def ended(self) -> bool:
        return self.state in ("finished", "stopped", "failed")

    @property
    def error(self) -> str | None:
        """What a run that failed said."""
        return run_ending(self.path).get("error")

    @property
    def silent(self) -> float:
        """Seconds since the run last left something."""
        return max(0.0, time.time() - self.changed)

    @property
    def total(self) -> int | None:
        """How many steps the run will have, by what it says itself; an estimate where it is timed."""
        progress, step = self.last.get("progress", 0.0), self.last.get("step", 0)
        return round(step / progress) if progress > 0 else None

    @property
    def left(self) -> float | None:
        """Seconds that it will still take at the pace it has had, evaluations included."""
        progress, wall = self.last.get("progress", 0.0), self.last.get("wall_seconds")
        return None if wall is None or progress <= 0 else wall * (1 - progress) / progress

    def _take(self, row: dict[str, Any] | None) -> None:
        figures = {name: value for name, value in (row or {}).items() if _is_number(value)}
        step = figures.get("step")
        if row is None or step is None:
            self.damaged += 1
            return
        if "event" in row:
            kind = str(row["event"])
            self.events[kind] = (self.events.get(kind, (0, 0.0))[0] + 1, figures.get("at", step))
            return
        if "train_loss" not in row:
            self.evaluation = figures
        if "train_loss" in figures:
            self.training.add(step, figures["train_loss"])
        if "validation_loss" in figures:
            self.validation.add(step, figures["validation_loss"])
        self.last |= figures


class FollowedFolder:
    """A run, or a folder of several, perhaps before there is anything to read."""

    def __init__(self, path: Path) -> None:
        """Raise an InputError if `path` cannot be a directory of this machine."""
        if re.match(r"[\w+-]{2,}:/", str(path)) or path.is_file():  # an address, whose double slash paths do not keep
            raise InputError(
                "is no local directory",
                where=path,
                fix="Pass the one that --out named; a remote one has to be mounted.",
            )
        self.path = path
        self.runs: list[FollowedRun] = []
        self.single = False
        """Whether the path is a run's own."""

    def read(self) -> None:
        """Look for runs, and read what is new of each."""
        self.single = self.single or run_file(self.path, METRICS) is not None
        if self.single:
            found = {self.path.resolve().name: self.path}
        else:
            found = {name: path for name, path in find_runs(self.path) if run_file(path, METRICS) is not None}
        known = {run.name: run for run in self.runs}
        self.runs = [known.get(name) or FollowedRun(name, path) for name, path in found.items()]
        for run in self.runs:
            run.read()

    @property
    def ended(self) -> bool:
        """Whether nothing more will come: a run has ended; in a folder another one may always begin."""
        return self.single and all(run.ended for run in self.runs)


def _latest_samples(run: Path) -> list[dict[str, Any]]:
    try:
        lines = [] if (path := run_file(run, SAMPLES)) is None else read_lines(path)[0]
    except OSError:  # it has just gone
        return []
    return [row for line in lines[-LATEST_SAMPLES:] if (row := parse_row(line)) is not None]


def _mean(points: list[tuple[float, float]]) -> tuple[float, float]:
    return sum(step for step, _ in points) / len(points), sum(value for _, value in points) / len(points)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
