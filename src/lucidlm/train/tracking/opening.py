"""Which tracker a name stands for, and whether it can be had."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lucidlm.core.errors import InputError
from lucidlm.core.extras import require_package
from lucidlm.train.config import TrackerName
from lucidlm.train.tracking.tracker import Tracker

SERVER = "MLFLOW_TRACKING_URI"


def require_trackers(names: Sequence[TrackerName]) -> None:
    """Check that trackers can be opened.

    Raises
    ------
    InputError: a package is not installed, or nothing says where MLflow's server is.
    """
    for name in names:
        require_package(name, "track", where=f"--track {name}")
    # Without a server MLflow takes a database, for which its client alone has no package.
    if "mlflow" in names and not os.environ.get(SERVER) and find_spec("sqlalchemy") is None:
        raise InputError(
            "says where MLflow's server is, and is not set", where=SERVER, fix="Set it: to http://localhost:5000, say."
        )


def open_tracker(name: TrackerName, directory: Path, settings: Mapping[str, Any], resume_at: int | None) -> Tracker:
    """Open a tracker for the run in `directory`.

    Parameters
    ----------
    settings: the run's, by their paths.
    resume_at: the step after which a run goes on, whose later steps are measured again; None: it begins.
    """
    # Slow to import, and not everybody has them.
    if name == "tensorboard":
        from lucidlm.train.tracking.tensorboard_tracker import TensorBoard

        return TensorBoard(directory, settings, resume_at)
    from lucidlm.train.tracking.mlflow_tracker import MLflow

    return MLflow(directory, settings, resume_at)
