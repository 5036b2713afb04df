"""Where a run is planned for: this machine, or an accelerator that is not here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from lucidlm.core.devices import Compute, choose_compute, describe_machine, free_memory
from lucidlm.core.settings import TrainingPrecision
from lucidlm.plan.accelerators import PCIE, accelerator
from lucidlm.plan.config import PlanConfig
from lucidlm.plan.measure import Calibration
from lucidlm.report.energy import estimate_energy
from lucidlm.train.pretrain.sizing import UTILISATION, matmul_flops

MFU = 0.35
"""Share of a data sheet's speed that training is taken to reach. What large models reach; small ones reach less."""

FP32_SHARE = 1 / 16
"""Of a GPU's speed in bf16, what it reaches in fp32 without tensor cores (H100: 67 of 989, A100: 19.5 of 312)."""

START_UP, OPENING, COMPILING, BYTES_A_SECOND = 6.0, 2.0, 60.0, 2e8
"""Seconds until a program runs, until its run begins, and to compile a model; and how fast files are written."""

FRAMEWORK = 450 * 2**20
"""Bytes of memory that Python, PyTorch and this package take; of a GPU's memory, its context."""


LOOPBACK = 1.0
"""GB a second that processes on one CPU send each other over gloo."""


@dataclass(frozen=True)
class Place:
    """A machine to plan for.

    Parameters
    ----------
    name: it in words.
    compute: how it computes.
    here: whether it is this machine.
    available: bytes of memory that there are for a run.
    watts: what it is assumed to draw.
    sheet: operations a second by its data sheet; None: to be measured.
    link: bytes a second that a rank sends to others, where nothing else is said.
    bandwidth: bytes a second of its memory by the data sheet; None: not known.
    """

    name: str
    compute: Compute
    here: bool
    available: int
    watts: float
    sheet: float | None
    link: float
    bandwidth: float | None = None

    @property
    def shared(self) -> bool:
        """Whether ranks share it, cores and memory: a CPU. A GPU is one rank's."""
        return self.compute.device.type == "cpu"

    @cached_property
    def speed(self) -> float:
        """Operations a second that training is taken to reach where nothing is measured."""
        if self.sheet is None:
            return UTILISATION * matmul_flops(self.compute)
        return MFU * self.sheet * (1.0 if self.compute.autocasts else FP32_SHARE)

    @property
    def basis(self) -> str:
        """What `speed` is, in words."""
        if self.sheet is None:
            return f"training reaches {UTILISATION:.0%} of the speed of a square matrix product here"
        return f"training reaches {MFU:.0%} of the speed on the data sheet (small models reach less)"

    def assumed(self, step_flops: float, unit_flops: float, weights: int, *, compiled: bool) -> Calibration:
        """Return what a calibration might find, by assumptions alone.

        Parameters
        ----------
        step_flops, unit_flops: operations of a training step, and of evaluating a token (or an example).
        weights: bytes of them.
        """
        step = step_flops / self.speed
        return Calibration(
            start_up=START_UP,
            opening=OPENING,
            first_step=step + (COMPILING if compiled else 2.0),
            step=step,
            waiting=0.0,
            evaluated=unit_flops / self.speed,
            final=unit_flops / self.speed,
            saving=1.0 + weights / BYTES_A_SECOND,
            peak=0,
            growth=0.0,
            framework=FRAMEWORK,
            products=self.speed,
            watts=None,
            load=0.0,
            steps=0,
        )


def place_of(how: PlanConfig, device: str, precision: TrainingPrecision) -> Place:
    """Return where the plan is for.

    Raises
    ------
    InputError: there is no such accelerator or device; see `choose_compute`.
    """
    if how.on is not None:
        found = accelerator(how.on)
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        compute = Compute(torch.device("cuda"), dtype, "")
        as_bf16 = ", fp8 counted as bf16" if precision == "fp8" else ""
        return Place(
            name=f"one {found.name} (not measured{as_bf16})",
            compute=compute,
            here=False,
            available=found.memory,
            watts=found.watts,
            sheet=found.flops,
            link=found.link,
            bandwidth=found.bandwidth,
        )
    compute, machine = choose_compute(device, precision), describe_machine()
    on_gpu = compute.device.type == "cuda"
    facts = {"cores": machine.cores, "accelerator": machine.accelerator if on_gpu else "none"}
    words = machine.accelerator if on_gpu else f"{machine.cpu}, {machine.cores} cores"
    watts = estimate_energy(0.0, facts).watts
    return Place(
        name=f"this machine ({words})",
        compute=compute,
        here=True,
        available=free_memory(compute.device),
        watts=watts,
        sheet=None,
        link=(PCIE if on_gpu else LOOPBACK) * 1e9,
    )
