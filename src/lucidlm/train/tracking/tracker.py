"""Trackers: other software that shows what a run measures, beside metrics.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

RunEnd = Literal["finished", "stopped", "failed"]
"""How a run ends; one that was stopped, by a signal, goes on with --resume."""


class Tracker(Protocol):
    """A run as other software shows it, which is open from the first step to the end."""

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Take what was measured at a step; it must not keep the run waiting."""
        ...

    def end(self, state: RunEnd) -> None:
        """Take over all that has been written, and close."""
        ...
