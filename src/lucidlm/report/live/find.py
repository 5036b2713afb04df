"""Where the runs in a folder are, and how one of them stands, read from what it has left so far."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from lucidlm.checkpoint.record import RECORD
from lucidlm.core.errors import InputError
from lucidlm.core.io import read_json
from lucidlm.evaluate.record import EVALUATION
from lucidlm.report.files import REPORT
from lucidlm.train.metrics_log import METRICS
from lucidlm.train.tracking.tracking import ENDED

DEPTH = 3
"""Folders below the given one that a run may lie in: a recipe's lie two deep."""
LIVE = 120.0
"""Seconds since the last line of a run that is still going on."""

RunState = Literal["running", "silent", "finished", "stopped", "failed"]
"""silent: it has not said how it ended, and nothing has come for long: it was killed, say, or does something slow."""


def find_runs(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the runs in `folder`, by their paths from there; what leads out of it is none."""
    root = folder.resolve()
    patterns = ("/".join(["*"] * depth) for depth in range(1, DEPTH + 1))
    for path in sorted(path for pattern in patterns for path in root.glob(pattern)):
        known = any(run_file(path, name) for name in (METRICS, EVALUATION, REPORT))
        if known and path.resolve().is_relative_to(root):
            yield path.relative_to(root).as_posix(), path


def run_file(run: Path, name: str) -> Path | None:
    """Return a file of a run, or None if there is none, or a link that leads out of the run."""
    path = run / name
    return path if path.is_file() and path.resolve().parent == run.resolve() else None


def run_state(run: Path) -> RunState:
    """Return how a run stands."""
    if run_file(run, METRICS) is None or run_file(run, RECORD) is not None:
        return "finished"
    if (ended := run_ending(run).get("state")) in ("stopped", "failed"):
        return ended
    return "running" if time.time() - last_change(run) < LIVE else "silent"


def run_ending(run: Path) -> dict[str, Any]:
    """Return what a run that did not finish says of its end: `state`, `error`; nothing if it goes on or was killed."""
    try:
        return {} if (path := run_file(run, ENDED)) is None else read_json(path)
    except InputError:
        return {}


def last_change(run: Path) -> float:
    """Return when a run last left something, in seconds since 1970; 0 if it has left nothing."""
    files = [file for part in (METRICS, EVALUATION, RECORD, REPORT) if (file := run_file(run, part)) is not None]
    return max(map(_changed, files), default=0.0)


def _changed(path: Path) -> float:
    """Return when a file was last changed; 0 if it has just gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
