"""The softmax of the loss and its gradient on GPUs, in one kernel: logits are read twice and overwritten once.

PyTorch's own operations pass over them some ten times, in fp32, which on an H100 took longer than the products of the head.
"""

# pyright: reportMissingImports=false, reportArgumentType=false, reportIndexIssue=false
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 4096
"""Logits of a row that a program holds at a time."""


@triton.jit
def _softmax_loss(
    logits, targets, counts, losses, width, smoothing,
    WITH_GRADIENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the loss of a row of `logits` (n, width), and its gradient in the row's place; a program a row."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * width
    target, counted = tl.load(targets + row), tl.load(counts + row).to(tl.float32)
    chosen = tl.load(logits + target).to(tl.float32)  # before the loop, whose sums wait for all threads
    columns = tl.arange(0, BLOCK)
    top, total, summed = float("-inf"), 0.0, 0.0
    for start in range(0, width, BLOCK):
        held = start + columns < width
        x = tl.load(logits + start + columns, mask=held, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(top, tl.max(x, 0))
        total = total * tl.exp(top - higher) + tl.sum(tl.exp(x - higher), 0)
        summed += tl.sum(tl.where(held, x, 0.0), 0)
        top = higher
    log_total = top + tl.log(total)
    expected = chosen * (1 - smoothing) + smoothing * summed / width
    tl.store(losses + row, (log_total - expected) * counted)
    if WITH_GRADIENT:
        for start in range(0, width, BLOCK):
            at = start + columns
            x = tl.load(logits + at, mask=at < width, other=float("-inf")).to(tl.float32)
            share = tl.exp(x - log_total) - tl.where(at == target, 1 - smoothing, 0.0) - smoothing / width
            tl.store(logits + at, (share * counted).to(logits.dtype.element_ty), mask=at < width)


def softmax_loss(logits: Tensor, targets: Tensor, counts: Tensor, smoothing: float, *, with_gradient: bool) -> Tensor:
    """Return the losses (n,), fp32, of logits (n, V) on a GPU, which their gradients overwrite if `with_gradient`.

    Parameters
    ----------
    targets: (n,) int64, all of them tokens, also where nothing counts.
    counts: (n,) bool; where it is false, loss and gradient are 0.
    """
    losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    with torch.cuda.device_of(logits):
        _softmax_loss[(len(logits),)](
            logits, targets, counts, losses, logits.shape[1], smoothing,
            WITH_GRADIENT=with_gradient, BLOCK=BLOCK, num_warps=8,
        )  # fmt: skip
    return losses
