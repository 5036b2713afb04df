"""metrics.jsonl: what a run measures as it goes, one JSON object a line; written here, and read while it grows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lucidlm.core.io import disk_errors, write_text

METRICS = "metrics.jsonl"
TAIL = 65536
"""Bytes in which the last evaluation is looked for."""
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
        for line in read_lines(self.path)[0]:
            if (row := parse_row(line)) is None:
                continue
            went_back = row.get("event") == ROLL_BACK
            if roll_backs > 0 if went_back else row.get("step", 0) <= step:
                kept.append(line)
            roll_backs -= went_back
        write_text(self.path, b"".join(kept).decode())


def read_lines(path: Path, start: int = 0) -> tuple[list[bytes], int]:
    """Return the lines of a file from byte `start` on, and the byte at which the next one begins.

    A last line that is being written, or that a crash cut short, is left for the next time.
    """
    with path.open("rb") as file:
        file.seek(start)
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1]
    return whole.splitlines(keepends=True), start + len(whole)


def parse_row(line: bytes) -> dict[str, Any] | None:
    """Return what a line says, or None if it is damaged."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def latest_figures(path: Path) -> dict[str, Any]:
    """Return the last value of each figure near the end of a log, events left out; none where it cannot be read."""
    figures: dict[str, Any] = {}
    try:
        lines, _ = read_lines(path, max(0, path.stat().st_size - TAIL))
    except OSError:
        return {}
    for line in lines:
        row = parse_row(line) or {}
        figures |= {} if "event" in row else row
    return figures
