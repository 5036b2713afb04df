"""metrics.jsonl: what a run measures as it goes, one JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lucidlm.core.io import disk_errors, write_text

METRICS = "metrics.jsonl"
SPIKE, ROLL_BACK = "spike", "roll-back"
"""What the field `event` says, on lines that are of no step and of no evaluation."""


class MetricsLog:
    """Appends to `directory/metrics.jsonl`, line by line, so that a crash costs at most the line being written."""

    def __init__(self, directory: Path, resume_at: int | None = None, roll_backs: int = 0) -> None:
        """Open the log; when a run resumes at a step, what was logged past it is about to be measured again and goes."""
        self.path = directory / METRICS
        if resume_at is not None and self.path.exists():
            self._forget(resume_at, roll_backs)
        self._open()

    def rewind(self, step: int, roll_backs: int) -> None:
        """Drop what was logged past `step`, and all roll-backs but the first so many."""
        self.close()
        self._forget(step, roll_backs)
        self._open()

    def write(self, **values: Any) -> None:
        """Append one line."""
        with disk_errors(self.path):
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _open(self) -> None:
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (open as long as the run)

    def _forget(self, step: int, roll_backs: int) -> None:
        kept = []
        for line in _whole_lines(self.path):
            row = json.loads(line)
            went_back = row.get("event") == ROLL_BACK
            if roll_backs > 0 if went_back else row["step"] <= step:
                kept.append(line)
            roll_backs -= went_back
        write_text(self.path, "".join(kept))


def _whole_lines(path: Path) -> list[str]:
    """Return the lines of `path` but for a last one that a crash cut short."""
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
