"""Fp32 matrix products on AMD CPUs with AVX-512, at the speed those have.

PyTorch takes fp32 products from MKL, which leaves AVX-512 unused on AMD's CPUs; oneDNN, which PyTorch carries too, uses
it and is about twice as fast. PyTorch hands fp32 products to oneDNN only together with the permission to round their
inputs to bf16; oneDNN makes use of that permission on CPUs with AMX units only, so elsewhere the results are those of
fp32 (max error at 1024³ against float64: MKL 0.6e-4, oneDNN 1.7e-4, real bf16 6e-1).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from lucidlm.core.devices import cpu_facts

SWITCH: Any = getattr(torch.backends.mkldnn, "matmul", None)
"""PyTorch's switch for fp32 products through oneDNN; versions before 2.9 have none."""


@cache
def onednn_is_faster() -> bool:
    """Return whether this CPU is one on which oneDNN's fp32 products are faster than MKL's, and no less exact."""
    flags = set(cpu_facts("flags").split())
    return cpu_facts("vendor_id") == "AuthenticAMD" and "avx512f" in flags and "amx_bf16" not in flags


@contextmanager
def fast_matmul(device: torch.device) -> Iterator[None]:
    """Take the fp32 products of large matrices on `device` from the faster library, for as long as this is entered.

    Not for generating token by token: there the products are small and MKL is the faster one.
    """
    if device.type != "cpu" or SWITCH is None or not onednn_is_faster():
        yield
        return
    before = SWITCH.fp32_precision
    SWITCH.fp32_precision = "bf16"
    try:
        yield
    finally:
        SWITCH.fp32_precision = before


def uses_onednn(device: torch.device) -> bool:
    """Return whether fp32 products on `device` are taken from oneDNN now."""
    return device.type == "cpu" and SWITCH is not None and SWITCH.fp32_precision == "bf16"
