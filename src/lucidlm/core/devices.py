"""What the machine is, and the device and number format that are right for it."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from lucidlm.core.errors import InputError
from lucidlm.core.settings import TrainingPrecision

FEWEST_TOKENS = 1024


@dataclass(frozen=True)
class Compute:
    """Where a model runs and in which format its matrix products are taken, with the reason for the choice."""

    device: torch.device
    dtype: torch.dtype
    reason: str

    @property
    def autocasts(self) -> bool:
        """Whether matrix products are taken in a narrower format than the weights are kept in (fp32)."""
        return self.dtype is not torch.float32


def choose_compute(device: str = "auto", precision: TrainingPrecision = "auto") -> Compute:
    """Choose device and precision: bf16 where the device multiplies bf16 matrices in hardware, fp32 elsewhere.

    Weights are kept in fp32 either way; bf16 is the format products are taken in (automatic mixed precision). On a CPU
    with AVX-512 BF16 that trains models of 1 to 14 M parameters 1.2 to 1.6 times as fast; on one without, a hundred
    times slower. What fp8 is asked for is bf16 otherwise, see `lucidlm.train.fp8`.

    Raises
    ------
    InputError: the device is not there, or bf16 is asked of a CPU that would emulate it (a hundred times slower), or fp8 of
        a device without units for it.
    """
    name = _best_device() if device == "auto" else device
    try:
        target = torch.device(name)
        torch.empty(1, device=target).item()
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"this machine has no device {name!r}", where="--device", fix="Leave it out or pass cpu."
        ) from error
    if precision == "fp8":
        if not has_fp8_units(target):
            raise InputError(
                f"{target.type} has no fp8 units; NVIDIA's GPUs have, from the H100, L4 and RTX 40 on",
                where="--precision",
                fix="Leave it out or pass bf16.",
            )
        return Compute(target, torch.bfloat16, "fp8 in the blocks as asked, bf16 elsewhere")
    if target.type == "cpu":
        if precision == "bf16" and not has_bf16_units():
            raise InputError(
                "this CPU has no bf16 units; bf16 would be emulated, about a hundred times slower",
                where="--precision",
                fix="Leave it out or pass fp32.",
            )
        if precision == "bf16" or (precision == "auto" and has_bf16_units()):
            return Compute(target, torch.bfloat16, "bf16, this CPU has units for it")
        return Compute(target, torch.float32, "fp32 as asked" if precision == "fp32" else "fp32, right for this CPU")
    if precision == "fp32":
        return Compute(target, torch.float32, "fp32 as asked")
    if target.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return Compute(target, torch.float32, "fp32, this GPU has no bf16 units")
    return Compute(target, torch.bfloat16, "bf16, right for this accelerator")


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@cache
def has_bf16_units() -> bool:
    """Return whether the CPU multiplies bf16 matrices in hardware: AVX-512 BF16 or AMX."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(cpu_facts("flags").split())


def has_fp8_units(device: torch.device) -> bool:
    """Return whether a device multiplies fp8 matrices in hardware: NVIDIA's of compute capability 8.9 and later."""
    return device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 9)


@cache
def cpu_facts(name: str) -> str:
    """Return the named field of the first processor in /proc/cpuinfo, or an empty string where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


@dataclass(frozen=True)
class Machine:
    """The facts a figure has to be read with."""

    system: str
    cpu: str
    cores: int
    memory_gb: float
    accelerator: str
    bf16_units: bool
    python: str
    torch: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@cache
def describe_machine() -> Machine:
    """Return what this machine is."""
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        cpu=cpu_facts("model name") or platform.processor() or platform.machine(),
        cores=usable_cores(),
        memory_gb=round(psutil.virtual_memory().total / 2**30, 1),
        accelerator=accelerator,
        bf16_units=has_bf16_units()
        if accelerator == "none"
        else torch.cuda.is_bf16_supported(including_emulation=False),
        python=platform.python_version(),
        torch=torch.__version__,
    )


def tokens_at_once(device: torch.device, bytes_per_token: int, enough: int) -> int:
    """Return how many tokens to read at once where only answers are wanted.

    They take a quarter of the free memory at most.

    Parameters
    ----------
    bytes_per_token: what a token's activations take while a block is computed.
    enough: as many keep a CPU busy; more would not be faster. A GPU gets eight times as many.
    """
    most = 8 * enough if device.type == "cuda" else enough
    return max(FEWEST_TOKENS, min(most, free_memory(device) // 4 // max(1, bytes_per_token)))


def held_memory(device: torch.device) -> int:
    """Return the bytes that this process holds now; on a GPU those of its memory that PyTorch's tensors took at most."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that this process has held; on a GPU those of its memory that PyTorch's tensors took."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:  # getrusage would tell the parent's peak, if that was higher
        status = Path("/proc/self/status").read_text()
        return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    except (OSError, StopIteration):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def free_memory(device: torch.device) -> int:
    """Return how many bytes are free on `device`: on a GPU its own, elsewhere the system's."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a `tensor` of the host to `device`; to a GPU from pinned memory, so that the host need not wait for it."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def usable_cores() -> int:
    """Return how many CPU cores this process may use (its affinity, where the system tells)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
