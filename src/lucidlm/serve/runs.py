"""`/runs`: what training runs in a folder have measured so far, for the page's curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse

from lucidlm.report.files import REPORT, SAMPLES
from lucidlm.report.live.find import RunState, find_runs, last_change, run_file, run_state
from lucidlm.serve.errors import ApiError
from lucidlm.train.metrics_log import METRICS, latest_figures, parse_row, read_lines

STATUS: dict[RunState, str] = {
    "running": "running",
    "finished": "done",
    "stopped": "stopped",
    "failed": "stopped",
    "silent": "stopped",
}
"""What the page calls the states of a run."""
POINTS = 1000
"""Rows of a run that are sent at once; of more only some are, evenly spaced, and all evaluations."""

POLICY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; sandbox allow-scripts"
}
"""A report is one file, which may run what is written in it, and neither load anything nor reach the server."""


def runs_router(folder: Path) -> APIRouter:
    """Return the endpoints that show the runs in `folder`."""
    router = APIRouter()

    def found(name: str) -> Path:
        if (path := dict(find_runs(folder)).get(name)) is None:
            raise ApiError("name: there is no such run", status=404, param="name")
        return path

    @router.get("/runs")
    def runs() -> dict[str, Any]:
        """List the runs, the last changed first."""
        described = [_described(name, path) for name, path in find_runs(folder)]
        return {"runs": sorted(described, key=lambda one: -one["changed"])}

    @router.get("/runs/metrics")
    def metrics(name: str, after: int = 0) -> dict[str, Any]:
        """Return what a run has measured since its line `after`, and which line comes next."""
        lines = _lines(found(name), METRICS)
        rows = [row for line in lines[max(0, after) :] if (row := parse_row(line)) is not None]
        return {"next": len(lines), "rows": _thinned(rows)}

    @router.get("/runs/samples")
    def samples(name: str) -> dict[str, Any]:
        """Return the texts that a run has written."""
        lines = _lines(found(name), SAMPLES)
        return {"samples": [row for line in lines if (row := parse_row(line)) is not None]}

    @router.get("/runs/report")
    def report(name: str) -> FileResponse:
        """Return a run's report."""
        if (path := run_file(found(name), REPORT)) is None:
            raise ApiError("this run has no report", status=404)
        return FileResponse(path, headers=POLICY)

    return router


def _described(name: str, path: Path) -> dict[str, Any]:
    measured = run_file(path, METRICS)
    last = {} if measured is None else latest_figures(measured)
    return {
        "name": name,
        "status": STATUS[run_state(path)],
        "changed": last_change(path),
        "step": last.get("step"),
        "last": {key: value for key, value in last.items() if "loss" in key or key.startswith("validation_")},
        "curves": measured is not None,
        "samples": run_file(path, SAMPLES) is not None,
        "report": run_file(path, REPORT) is not None,
    }


def _lines(run: Path, name: str) -> list[bytes]:
    """Return the lines of a file of a run; none without the file."""
    try:
        return [] if (path := run_file(run, name)) is None else read_lines(path)[0]
    except OSError:  # it has just gone
        return []


def _thinned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    every = max(1, len(rows) // POINTS)
    return [row for place, row in enumerate(rows) if place % every == 0 or "train_loss" not in row or row is rows[-1]]
