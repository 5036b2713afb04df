"""A plan: what a run will take, part by part, as data and as a table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from lucidlm.core.amounts import count
from lucidlm.plan.config import PlanConfig
from lucidlm.plan.ranks import Share


class BasePlan(ABC):
    """What plans of training and of serving have in common."""

    run: str
    machine: str
    memory: dict[str, int]
    available: int
    watts: float
    assumptions: tuple[str, ...]
    advice: tuple[str, ...]
    prices: PlanConfig

    @property
    def peak(self) -> int:
        """Bytes of memory at the moment of most need."""
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        """Whether there is memory for it."""
        return self.peak <= self.available

    @property
    def takes(self) -> str:
        """What it takes, in words."""
        room = "" if self.fits else ", which is more than there is"
        return f"{self.peak / 2**30:,.2f} GiB of memory{room}"

    def cost_of(self, seconds: float) -> float | None:
        """Return what so much time costs, in the prices' currency; None where no price is given."""
        hour, kwh = self.prices.price_per_hour, self.prices.price_per_kwh
        if hour is None and kwh is None:
            return None
        return ((hour or 0.0) + (kwh or 0.0) * self.watts / 1000) * seconds / 3600

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, which JSON can hold."""

    @abstractmethod
    def rows(self) -> list[tuple[str, str]]:
        """Return what a table of it shows: names and values; the parts of what stands above them begin with two spaces."""


@dataclass(frozen=True)
class Plan(BasePlan):
    """What a run will take. All numbers are predictions.

    Parameters
    ----------
    run: the command.
    machine: what it is planned for.
    parameters: how many, by part of the model.
    work: what is done, by what is counted: steps, tokens, FLOPs.
    memory: bytes at the moment of most need, by part; of the GPU, if there is one.
    available: bytes that there are for it.
    largest_micro_batch: the most samples that can be taken at once.
    seconds: of wall time, by part; all of the command is in it.
    watts: drawn on the way; `watts_from` says how that is known.
    bound: what the time goes to.
    recommended: settings by their names.
    advice: sentences about what could be better.
    assumptions: what all this rests on.
    share: what each of several ranks does and holds; None: one process. `memory` and `available` are then a rank's.
    """

    run: str
    machine: str
    parameters: dict[str, int]
    work: dict[str, float]
    memory: dict[str, int]
    available: int
    largest_micro_batch: int
    seconds: dict[str, float]
    watts: float
    watts_from: str
    bound: str
    recommended: dict[str, str | int]
    advice: tuple[str, ...]
    assumptions: tuple[str, ...]
    prices: PlanConfig
    share: Share | None = None

    @property
    def total_seconds(self) -> float:
        """How long the command takes."""
        return sum(self.seconds.values())

    @property
    def watt_hours(self) -> float:
        """The electricity that it takes."""
        return self.watts * self.total_seconds / 3600

    @property
    def cost(self) -> float | None:
        """What it costs, in the prices' currency; None where no price is given."""
        return self.cost_of(self.total_seconds)

    @property
    def takes(self) -> str:
        """What it takes, in words."""
        return f"{duration(self.total_seconds)}, {super().takes}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "machine": self.machine,
            "parameters": {**self.parameters, "all": sum(self.parameters.values())},
            "work": self.work,
            "memory_bytes": {**self.memory, "peak": self.peak, "available": self.available},
            "fits": self.fits,
            "largest_micro_batch": self.largest_micro_batch,
            "seconds": {**self.seconds, "all": self.total_seconds},
            "energy": {"watt_hours": self.watt_hours, "watts": self.watts, "from": self.watts_from},
            "cost": self.cost,
            "bound": self.bound,
            "recommended": self.recommended,
            "advice": list(self.advice),
            "assumptions": list(self.assumptions),
            "ranks": None if self.share is None else self.share.to_dict(),
        }

    def rows(self) -> list[tuple[str, str]]:
        rows = [("run", f"{self.run}, {self.machine}")]
        if self.share is not None:
            rows += [("ranks", self.share.described)]
            rows += [("a step", duration(self.share.step))]
            rows += [("  computing", duration(self.share.computing)), ("  exchanging", duration(self.share.exchanging))]
        rows += named_parts("parameters", self.parameters, count)
        rows += [(name, operations(value) if name == "FLOPs" else _count(value)) for name, value in self.work.items()]
        rows += named_parts("memory" if self.share is None else "memory of a rank", self.memory, size)
        room = f"{size(self.available)}{'' if self.fits else ': it does not fit'}"
        rows += [("memory there is", room), ("largest micro-batch", f"{self.largest_micro_batch:,}")]
        rows += named_parts("time", self.seconds, duration)
        rows += [("energy", f"{energy(self.watt_hours)}, {self.watts:,.0f} W {self.watts_from}")]
        if self.cost is not None:
            rows += [("cost", f"{self.cost:,.2f}" if self.cost >= 1 else f"{self.cost:.4f}")]
        recommended = ", ".join(f"{name} {value}" for name, value in self.recommended.items())
        return [*rows, ("bound by", self.bound), ("recommended", recommended)]


def named_parts(name: str, parts: dict[str, Any], written: Any) -> list[tuple[str, str]]:
    return [(name, written(sum(parts.values()))), *((f"  {part}", written(value)) for part, value in parts.items())]


def _count(value: float) -> str:
    return count(value) if value >= 100 else f"{value:.3g}"


def operations(value: float) -> str:
    """Write a number of operations: 2.2 T, 31.4 P."""
    for size, name in ((1e18, "E"), (1e15, "P"), (1e12, "T")):
        if value >= size:
            return f"{value / size:,.3g} {name}"
    return count(value)


def size(byte_count: float) -> str:
    """Write an amount of memory: 1.25 GiB, 3.4 MiB."""
    return f"{byte_count / 2**30:,.2f} GiB" if byte_count >= 2**30 else f"{byte_count / 2**20:,.1f} MiB"


def duration(seconds: float) -> str:
    """Write a length of time: 4.2 s, 95 s, 12.5 min, 3.1 h, 4.2 days."""
    for size, name in ((86400 * 2, "days"), (3600 * 2, "h"), (120, "min")):
        if seconds >= size:
            return f"{seconds / {'days': 86400, 'h': 3600, 'min': 60}[name]:,.1f} {name}"
    return f"{seconds:,.1f} s" if seconds < 20 else f"{seconds:,.0f} s"


def energy(watt_hours: float) -> str:
    """Write an amount of electricity: 12.3 Wh, 4.5 kWh."""
    return f"{watt_hours / 1000:,.1f} kWh" if watt_hours >= 1000 else f"{watt_hours:.3g} Wh"
