"""Calibrations: kept for a machine, versions and the shape of a run, so that each is measured once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
from pydantic import BaseModel, ValidationError

from lucidlm.core.devices import describe_machine
from lucidlm.core.errors import InputError, LucidError
from lucidlm.core.io import read_json, write_json
from lucidlm.core.progress import log
from lucidlm.data.sources.pypi import cache_directory
from lucidlm.version import __version__

R = TypeVar("R", bound=BaseModel)

BUSY = 0.15
"""Share of the machine that others may keep busy before it is said that the time will be off."""


def calibrated(
    kind: type[R], measure: Callable[[Any, float], R], run: Any, shape: Mapping[str, Any], *, anew: bool
) -> R:
    """Return what `measure(run, load)` finds in a process of its own, or found before for the same `shape` here.

    Raises
    ------
    LucidError: the process ended by itself, for want of memory perhaps; or `measure` failed.
    """
    path = _place(shape)
    if not anew and path.exists():
        try:
            return kind.model_validate(read_json(path))
        except (InputError, ValidationError):
            pass  # of another version: measured again
    log("calibrating: the run is begun, to see what it takes (half a minute at most; kept for the next time)")
    # A tenth of a second at least lies between the two readings of what the processors did.
    load = psutil.cpu_percent(interval=1.0) / 100
    found = _elsewhere(measure, run, load)
    write_json(path, found.model_dump())
    return found


def _place(shape: Mapping[str, Any]) -> Path:
    """Return the file for a shape on this machine, with these versions and as many threads."""
    facts = {**describe_machine().as_dict(), "lucidlm": __version__, "threads": torch.get_num_threads(), **shape}
    name = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]
    return cache_directory().parent / "plans" / f"{name}.json"


def _elsewhere(measure: Callable[[Any, float], R], run: Any, load: float) -> R:
    from loky.process_executor import BrokenProcessPool, ProcessPoolExecutor  # slow to import

    executor = ProcessPoolExecutor(1)
    try:
        return executor.submit(measure, run, load).result()
    except BrokenProcessPool as error:
        what = "the calibration ended by itself: most likely the run needs more memory than there is"
        raise LucidError(
            what, fix="Make the micro-batch or the model smaller; --calibration off plans without it."
        ) from error
    finally:
        executor.shutdown(kill_workers=True)
