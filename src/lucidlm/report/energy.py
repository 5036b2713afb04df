"""Estimate a run's electricity from its duration and an assumed power; reports state that it is an estimate.

The processor's power meters (RAPL) are closed to ordinary users on most systems and absent from virtual machines, and
they measure the machine that writes the report, not the one that trained. So we assume a power, and state it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WATTS_PER_CORE = 10.0
"""Per busy core with its share of the package and the memory: about 5 on servers, 15 on desktop processors."""
WATTS_PER_ACCELERATOR = 400.0
"""Per busy data-centre GPU: from 70 (T4) to 700 (H100)."""


@dataclass(frozen=True)
class Energy:
    """Watt-hours, and the assumed power in watts."""

    watt_hours: float
    watts: float


def estimate_energy(seconds: float, machine: Mapping[str, Any]) -> Energy:
    """Estimate the energy of `seconds` of full load on `machine` (`describe_machine().as_dict()`)."""
    watts = WATTS_PER_CORE * machine.get("cores", 1)
    if machine.get("accelerator", "none") != "none":
        watts += WATTS_PER_ACCELERATOR
    return Energy(watts * seconds / 3600, watts)
