"""The device and the number format that are right for the machine."""

from __future__ import annotations

import json

import pytest
import torch

from lucidlm.core import devices
from lucidlm.core.devices import choose_compute, describe_machine
from lucidlm.core.errors import InputError


@pytest.mark.parametrize(("units", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_cpus_take_what_they_have_units_for(monkeypatch: pytest.MonkeyPatch, units: bool, dtype: torch.dtype) -> None:
    monkeypatch.setattr(devices, "has_bf16_units", lambda: units)
    compute = choose_compute("cpu")
    assert (compute.device.type, compute.dtype, compute.autocasts) == ("cpu", dtype, units)
    assert choose_compute("cpu", "fp32").dtype is torch.float32
    assert "this CPU" in compute.reason


def test_bf16_that_would_be_emulated_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_bf16_units", lambda: False)
    with pytest.raises(InputError, match=r"--precision: this CPU has no bf16 units"):
        choose_compute("cpu", "bf16")


def test_bf16_may_be_asked_of_a_cpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_bf16_units", lambda: True)
    compute = choose_compute("cpu", "bf16")
    assert compute.dtype is torch.bfloat16
    assert compute.autocasts


@pytest.mark.parametrize(
    ("flags", "found"),
    [("fpu sse2 avx512_bf16", True), ("fpu amx_bf16", True), ("fpu avx2 avx512f", False), ("", False)],
)
def test_units_are_read_off_the_flags(monkeypatch: pytest.MonkeyPatch, flags: str, found: bool) -> None:
    monkeypatch.setattr(devices, "cpu_facts", lambda *_: flags)
    assert devices.has_bf16_units.__wrapped__() is found


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "meta"])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(InputError, match="--device: this machine has no device"):
        choose_compute(name)


def test_the_machine_can_be_written_down() -> None:
    facts = json.loads(json.dumps(describe_machine().as_dict()))
    assert facts["cores"] >= 1
    assert facts["torch"] == torch.__version__
