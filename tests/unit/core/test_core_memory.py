"""Freed memory is kept for the next step, and few kernels are."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys

import pytest

SCRIPT = """
import resource
from lucidlm.core.memory import keep_freed_memory

def faults(size=8 << 20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        blocks = [b"x" * size for _ in range(10)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
usual = faults()
assert keep_freed_memory()
faults()
print(usual, faults())
"""


SHAPES = """
import torch
from torch.nn.functional import conv2d
from lucidlm.core.memory import KERNELS_KEPT, configure_memory

configure_memory()
if not torch.backends.mkldnn.is_available():
    raise SystemExit(77)
kernel = torch.ones(8, 3, 3, 3)
for rows in [*range(2, 2 + KERNELS_KEPT + 1), 2, 2]:
    conv2d(torch.ones(rows, 3, 32, 32), kernel)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides that")
def test_a_block_that_was_freed_is_used_again() -> None:
    found = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True, timeout=60)
    usual, kept = map(int, found.stdout.split())
    assert kept < 0.1 * usual


@pytest.mark.parametrize(
    ("own", "again"), [({}, "cache_miss"), ({"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "500"}, "cache_hit")]
)
def test_kernels_of_shapes_long_past_are_dropped_unless_the_user_keeps_them(own: dict[str, str], again: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ONEDNN_PRIMITIVE_CACHE_CAPACITY"}
    told = {"ONEDNN_VERBOSE": "profile_create", "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-c", SHAPES]
    found = subprocess.run(call, env=environment | told | own, capture_output=True, text=True, timeout=60)
    if found.returncode == 77:
        pytest.skip("this PyTorch has no oneDNN")
    assert found.returncode == 0, found.stderr
    made = re.findall(r"create:(cache_\w+),cpu,convolution", found.stdout)
    assert len(made) == 67
    assert set(made[:65]) == {"cache_miss"}
    assert made[65:] == [again, "cache_hit"]
