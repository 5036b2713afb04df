"""What a label curve leaves: `curve.json`, the measurements of each method at each number of labelled examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from lucidlm.core.config import describe
from lucidlm.core.errors import InputError

CURVE = "curve.json"
PRETRAINED, OTHER, SCRATCH, BASELINE = "pretrained", "other model", "from scratch", "baseline"


class Point(BaseModel, frozen=True):
    """One measurement.

    Parameters
    ----------
    shots: how many examples were asked for, of each label where they have labels. examples: how many there were in all.
    value, low, high: the metric, and its bootstrap interval over the held-out examples.
    seconds: of training.
    """

    method: str
    shots: int
    seed: int
    examples: int
    value: float
    low: float
    high: float
    seconds: float


class LabelCurve(BaseModel):
    """What curve.json holds.

    Parameters
    ----------
    settings: what all points have in common. fingerprint: of the pretrained model and of all examples.
    by_label: whether `shots` are of each label. metric: by which `points` were judged, on `test_examples` examples.
    baseline: the name of the method called "baseline"; None for a task that has none.
    """

    settings: dict[str, Any]
    fingerprint: str
    by_label: bool
    metric: str
    percent: bool
    test_examples: int
    baseline: str | None = None
    machine: dict[str, Any]
    points: list[Point] = []

    def of(self, method: str, shots: int) -> list[Point]:
        """Return the points of all seeds."""
        return [point for point in self.points if (point.method, point.shots) == (method, shots)]


def read_curve(path: str | Path) -> LabelCurve:
    """Read a curve.json.

    Raises
    ------
    InputError: it is missing, damaged, or another version's.
    """
    try:
        return LabelCurve.model_validate_json(Path(path).read_bytes())
    except FileNotFoundError:
        raise InputError("file not found", where=path) from None
    except ValidationError as error:
        raise InputError(f"is not a label curve ({describe(error)})", where=path, fix="Remove it.") from None
