"""Electricity as the machine itself counts it: RAPL of the processor, NVML of an NVIDIA GPU.

Either may be missing or closed: since 2020 Linux shows RAPL's counters to the superuser only, and virtual machines have
none.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

RAPL = Path("/sys/class/powercap")


def joules(device: str) -> float | None:
    """Return the energy that the `device` ("cpu", "cuda") has drawn since a moment that stays the same; None: unknown.

    With a GPU it is the GPU's alone.
    """
    return _nvml() if device == "cuda" else _rapl()


def _rapl() -> float | None:
    """Return what all packages together have counted. They wrap round after some hours, which a plan does not take."""
    try:
        found = [int(path.read_text()) / 1e6 for path in RAPL.glob("intel-rapl:[0-9]/energy_uj")]
    except (OSError, ValueError):
        return None
    return sum(found) if found else None


def _nvml() -> float | None:
    """Return what the first GPU has counted."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
        failed = (
            library.nvmlInit_v2()
            or library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle))
            or library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules))
        )
    except (OSError, AttributeError):
        return None
    return None if failed else millijoules.value / 1e3
