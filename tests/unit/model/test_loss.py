"""The chunked cross-entropy: PyTorch's values, and the format that its products are taken in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from lucidlm.model.loss import IGNORE_INDEX, token_losses


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothed_losses_are_pytorchs(smoothing: float) -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(2, 5, 8, requires_grad=True), torch.randn(30, 8, requires_grad=True)
    targets = torch.randint(30, (2, 5))
    targets[0, 2:] = IGNORE_INDEX
    total, counted = token_losses(hidden, head, targets, smoothing)
    logits = functional.linear(hidden, head).flatten(0, 1)
    expected = functional.cross_entropy(logits, targets.flatten(), reduction="sum", label_smoothing=smoothing)
    assert counted == 7
    assert torch.allclose(total, expected, rtol=1e-5)
    for mine, other in zip(
        torch.autograd.grad(total, (hidden, head)), torch.autograd.grad(expected, (hidden, head)), strict=True
    ):
        assert torch.allclose(mine, other, atol=1e-5)


class Products(TorchDispatchMode):
    """Notes the dtypes that matrices are multiplied in."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: list[torch.dtype] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in {"mm", "addmm", "addmm_"}:
            self.dtypes += [arg.dtype for arg in args if isinstance(arg, Tensor)]
        return func(*args, **(kwargs or {}))


def test_under_autocast_all_products_are_in_its_format_and_gradients_stay_fp32() -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(2, 300, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    targets = torch.randint(50, (2, 300))
    exact = torch.autograd.grad(token_losses(hidden, head, targets)[0], (hidden, head))
    with Products() as products:
        with torch.autocast("cpu", torch.bfloat16):
            total, _ = token_losses(hidden, head, targets)
        rounded = torch.autograd.grad(total, (hidden, head))
    assert len(products.dtypes) >= 6
    assert set(products.dtypes) == {torch.bfloat16}
    for mine, other in zip(rounded, exact, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - other).norm() < 0.01 * other.norm()
