"""The gradient of RMSNorm, which is written out: equal to the one that PyTorch derives from the formula."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from lucidlm.model.norm import RMSNorm


def test_of_a_norm() -> None:
    torch.manual_seed(0)
    norm = RMSNorm(6, 1e-3).double()
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
    x = torch.randn(4, 3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, _: norm(x), (x, norm.weight))
    assert torch.allclose(norm(x), functional.rms_norm(x, (6,), norm.weight, 1e-3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_formats_stay(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    norm, x = RMSNorm(64, 1e-6), torch.randn(4, 3, 64, dtype=dtype, requires_grad=True)
    gradient = torch.randn(4, 3, 64, dtype=dtype)
    found, wanted = [], []
    for results, normalise in (
        (found, norm),
        (wanted, lambda x: functional.rms_norm(x, (64,), norm.weight.to(dtype), 1e-6)),
    ):
        x.grad = norm.weight.grad = None
        y = normalise(x)
        y.backward(gradient)
        results += [y, x.grad, norm.weight.grad]
    assert [one.dtype for one in found] == [one.dtype for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        size = other.abs().max().item()
        assert torch.allclose(one.float(), other.float(), atol=size * (1e-6 if dtype is torch.float32 else 0.02))
