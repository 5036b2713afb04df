"""metrics.jsonl: what a run measures as it goes, one JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lucidlm.core.io import disk_errors, write_text

METRICS = "metrics.jsonl"


class MetricsLog:
    """Appends to `directory/metrics.jsonl`, line by line, so that a crash costs at most the line being written."""

    def __init__(self, directory: Path, resume_at: int | None = None) -> None:
        """Open the log; when a run resumes at a step, what was logged past it is about to be measured again and goes."""
        self.path = directory / METRICS
        if resume_at is not None and self.path.exists():
            write_text(
                self.path, "".join(line for line in _whole_lines(self.path) if json.loads(line)["step"] <= resume_at)
            )
        with disk_errors(self.path):
            directory.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (open as long as the run)

    def write(self, **values: Any) -> None:
        """Append one line."""
        with disk_errors(self.path):
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()

    def close(self) -> None:
        self._file.close()


def _whole_lines(path: Path) -> list[str]:
    """Return the lines of `path` but for a last one that a crash cut short."""
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
