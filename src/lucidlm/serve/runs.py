"""`/runs`: what training runs in a folder have measured so far, for the page's curves."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse

from lucidlm.checkpoint.record import RECORD
from lucidlm.evaluate.record import EVALUATION
from lucidlm.report.files import REPORT, SAMPLES
from lucidlm.serve.errors import ApiError
from lucidlm.train.metrics_log import METRICS

DEPTH = 3
"""Folders below the given one that a run may lie in: a recipe's lie two deep."""
LIVE = 120.0
"""Seconds since the last line of a run that is still going on."""
POINTS = 1000
"""Rows of a run that are sent at once; of more only some are, evenly spaced, and all evaluations."""
TAIL = 65536
"""Bytes in which the last evaluation is looked for."""

POLICY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; sandbox allow-scripts"
}
"""A report is one file, which may run what is written in it, and neither load anything nor reach the server."""


def runs_router(folder: Path) -> APIRouter:
    """Return the endpoints that show the runs in `folder`."""
    router = APIRouter()

    def found(name: str) -> Path:
        if (path := dict(_runs(folder)).get(name)) is None:
            raise ApiError("name: there is no such run", status=404, param="name")
        return path

    @router.get("/runs")
    def runs() -> dict[str, Any]:
        """List the runs, the last changed first."""
        described = [_described(name, path) for name, path in _runs(folder)]
        return {"runs": sorted(described, key=lambda one: -one["changed"])}

    @router.get("/runs/metrics")
    def metrics(name: str, after: int = 0) -> dict[str, Any]:
        """Return what a run has measured since its line `after`, and which line comes next."""
        lines = _whole_lines(found(name), METRICS)
        rows = [row for line in lines[max(0, after) :] if (row := _parsed(line)) is not None]
        return {"next": len(lines), "rows": _thinned(rows)}

    @router.get("/runs/samples")
    def samples(name: str) -> dict[str, Any]:
        """Return the texts that a run has written."""
        return {"samples": [row for line in _whole_lines(found(name), SAMPLES) if (row := _parsed(line)) is not None]}

    @router.get("/runs/report")
    def report(name: str) -> FileResponse:
        """Return a run's report."""
        if (path := _file(found(name), REPORT)) is None:
            raise ApiError("this run has no report", status=404)
        return FileResponse(path, headers=POLICY)

    return router


def _runs(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the runs in `folder`, by their paths from there; what leads out of it is none."""
    root = folder.resolve()
    patterns = ("/".join(["*"] * depth) for depth in range(1, DEPTH + 1))
    for path in sorted(path for pattern in patterns for path in root.glob(pattern)):
        known = any(_file(path, name) for name in (METRICS, EVALUATION, REPORT))
        if known and path.resolve().is_relative_to(root):
            yield path.relative_to(root).as_posix(), path


def _file(run: Path, name: str) -> Path | None:
    """Return a file of a run, or None if there is none, or a link that leads out of the run."""
    path = run / name
    return path if path.is_file() and path.resolve().parent == run.resolve() else None


def _described(name: str, path: Path) -> dict[str, Any]:
    files = [file for part in (METRICS, EVALUATION, RECORD, REPORT) if (file := _file(path, part)) is not None]
    changed = max(map(_changed, files), default=0.0)
    measured = _file(path, METRICS) is not None
    done = not measured or _file(path, RECORD) is not None
    last: dict[str, Any] = {}
    for line in _whole_lines(path, METRICS, TAIL):
        row = _parsed(line) or {}
        last |= {} if "event" in row else row
    status = "done" if done else "running" if time.time() - changed < LIVE else "stopped"
    return {
        "name": name,
        "status": status,
        "changed": changed,
        "step": last.get("step"),
        "last": {key: value for key, value in last.items() if "loss" in key or key.startswith("validation_")},
        "curves": measured,
        "samples": _file(path, SAMPLES) is not None,
        "report": _file(path, REPORT) is not None,
    }


def _changed(path: Path) -> float:
    """Return when a file was last changed, in seconds since 1970; 0 if it has just gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _whole_lines(run: Path, name: str, tail: int | None = None) -> list[bytes]:
    """Return the lines of a file, or of its last `tail` bytes, but for one that is being written; none without a file."""
    try:
        if (path := _file(run, name)) is None:
            return []
        with path.open("rb") as file:
            if tail is not None:
                file.seek(max(0, path.stat().st_size - tail))
            return [line for line in file.read().splitlines(keepends=True) if line.endswith(b"\n")]
    except OSError:
        return []


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _thinned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    every = max(1, len(rows) // POINTS)
    return [row for place, row in enumerate(rows) if place % every == 0 or "train_loss" not in row or row is rows[-1]]
