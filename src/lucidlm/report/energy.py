"""How much electricity a run took: an estimate from its length and an assumed power, and said to be one.

Power meters of the processor (RAPL) are closed to ordinary users on most systems and absent from virtual machines, and
they tell of the machine that writes the report, not of the one that trained. So we assume a power, and state it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WATTS_PER_CORE = 10.0
"""A busy core with its share of the package and the memory: servers lie near 5, desktop processors near 15."""
WATTS_PER_ACCELERATOR = 400.0
"""A busy data-centre GPU; they lie between 70 (T4) and 700 (H100)."""


@dataclass(frozen=True)
class Energy:
    """Watt-hours, and the power in watts that was assumed."""

    watt_hours: float
    watts: float


def estimate_energy(seconds: float, machine: Mapping[str, Any]) -> Energy:
    """Estimate what `seconds` of full load took on `machine` (`describe_machine().as_dict()`)."""
    watts = WATTS_PER_CORE * machine.get("cores", 1)
    if machine.get("accelerator", "none") != "none":
        watts += WATTS_PER_ACCELERATOR
    return Energy(watts * seconds / 3600, watts)
