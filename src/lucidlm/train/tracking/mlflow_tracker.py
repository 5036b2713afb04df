"""MLflow: a run on the tracking server that MLflow's own environment variables name."""

# The package is an extra, which type checkers need not have.
# pyright: reportMissingImports=false

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from lucidlm.core.io import read_json, write_json
from lucidlm.train.tracking.tracker import RunEnd

NOTE = "mlflow.json"
"""Where a run keeps its name at the server, by which it goes on there."""
MOST_METRICS, MOST_PARAMS, LONGEST = 1000, 100, 6000
"""What MLflow takes in one request, and the characters of a parameter."""
STATES = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MLflow:
    """Sends the settings as parameters and figures as metrics.

    A request takes longer than a small model's step, so a thread sends one at a time, with all that has gathered since.
    """

    def __init__(self, directory: Path, settings: Mapping[str, Any], resume_at: int | None) -> None:
        note, kept = directory / NOTE, None
        if resume_at is not None and note.exists():
            kept = read_json(note)["run_id"]
        # Within a run of the caller's it becomes a part of that.
        nested = mlflow.active_run() is not None
        run = mlflow.start_run(run_id=kept, run_name=None if kept else directory.resolve().name, nested=nested)
        self._id: str = run.info.run_id
        self._client = MlflowClient()
        self._gathered: list[Metric] = []
        self._thread = ThreadPoolExecutor(1, "mlflow")
        self._sending: Future[None] | None = None
        if kept is None:
            write_json(note, {"run_id": self._id})
            params = [Param(name, str(value)[:LONGEST]) for name, value in settings.items() if value is not None]
            for start in range(0, len(params), MOST_PARAMS):
                self._client.log_batch(self._id, params=params[start : start + MOST_PARAMS])

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        self._gathered += [Metric(name, value, now, step) for name, value in figures.items()]
        if self._sending is not None and self._sending.done():
            self._sending.result()  # raises what went wrong
            self._sending = None
        if self._sending is None:
            rows, self._gathered = self._gathered, []
            self._sending = self._thread.submit(self._send, rows)

    def end(self, state: RunEnd) -> None:
        try:
            if self._sending is not None:
                self._sending.result()
            self._send(self._gathered)
        finally:
            self._thread.shutdown()
            with redirect_stdout(sys.stderr):  # it prints where the run can be looked at
                mlflow.end_run(STATES[state])

    def _send(self, rows: list[Metric]) -> None:
        for start in range(0, len(rows), MOST_METRICS):
            self._client.log_batch(self._id, metrics=rows[start : start + MOST_METRICS])
