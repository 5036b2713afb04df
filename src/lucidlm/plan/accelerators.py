"""Accelerators that a plan can be for without having one: what their makers' data sheets say."""

from __future__ import annotations

from dataclasses import dataclass

from lucidlm.core.errors import InputError


@dataclass(frozen=True)
class Accelerator:
    """A GPU, by its data sheet.

    Parameters
    ----------
    flops: operations a second in dense bf16 matrix products, summed in fp32.
    memory: bytes. bandwidth: bytes a second of it. watts: the most it draws.
    link: bytes a second that it sends to another one of the machine: half of what the sheet says of both directions.
    """

    name: str
    flops: float
    memory: int
    bandwidth: float
    watts: float
    link: float


PCIE = 32
"""GB a second that PCIe 4.0 sends over 16 lanes."""


def _sheet(
    name: str, teraflops: float, gigabytes: int, gigabytes_a_second: float, watts: float, link: float = PCIE
) -> Accelerator:
    return Accelerator(name, teraflops * 1e12, gigabytes * 2**30, gigabytes_a_second * 1e9, watts, link * 1e9)


ACCELERATORS = {
    "h200": _sheet("NVIDIA H200 SXM", 989, 141, 4800, 700, 450),
    "h100": _sheet("NVIDIA H100 SXM", 989, 80, 3350, 700, 450),
    "a100": _sheet("NVIDIA A100 SXM", 312, 80, 2039, 400, 300),
    "a100-40gb": _sheet("NVIDIA A100 SXM, 40 GB", 312, 40, 1555, 400, 300),
    "l40s": _sheet("NVIDIA L40S", 362, 48, 864, 350),
    "l4": _sheet("NVIDIA L4", 121, 24, 300, 72),
    "a10": _sheet("NVIDIA A10", 125, 24, 600, 150),
    "rtx4090": _sheet("NVIDIA GeForce RTX 4090", 165, 24, 1008, 450),
    "rtx3090": _sheet("NVIDIA GeForce RTX 3090", 71, 24, 936, 350),
}


def accelerator(name: str) -> Accelerator:
    """Return an accelerator by its name, however that is written.

    Raises
    ------
    InputError: it is not known; those that are known are listed.
    """
    key = name.lower().replace(" ", "").replace("_", "-")
    if key not in ACCELERATORS:
        raise InputError(
            f"there is no accelerator {name!r} here", where="--on", fix=f"Known are {', '.join(ACCELERATORS)}."
        )
    return ACCELERATORS[key]
