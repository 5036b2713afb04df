"""The loss every language model is trained with, kept as a sum and a count.

The mean is taken once, over all counted tokens of the global batch: a mean of micro-batches' means would weigh tokens
differently.

The output head is the widest product of a small model and its logits the largest tensor, so logits never exist for the
whole batch: a chunk of rows small enough for the processor's cache goes through product, softmax and gradient at once.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

IGNORE_INDEX = -100
"""The target that marks a position as not counted."""

CHUNK = 2**21
"""Logits held at a time: 8 MB in fp32, within what a processor's last cache keeps."""

CHUNK_OF_GPU = 2**27
"""Likewise on a GPU, which needs many rows to be busy: half a gigabyte in fp32."""

FEWEST_ROWS = 256
"""Rows of a chunk at least, whatever the vocabulary: each chunk reads and writes all of the head's gradient."""


def token_losses(hidden: Tensor, head: Tensor, targets: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy in nats (fp32) and the number of counted positions, both scalars.

    Parameters
    ----------
    hidden: (B, T, D) final hidden states.
    head: (V, D) output embedding.
    targets: (B, T) int64 token ids, `IGNORE_INDEX` where nothing is predicted.
    smoothing: share of the target spread evenly over the vocabulary (Szegedy et al. 2015, arXiv:1512.00567).

    Under autocast the products are taken in its format, those of the gradients too, and their sums in fp32.
    """
    flat, device = hidden.flatten(0, 1), hidden.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        # Autocast does not reach products with an output of their own (`mm(out=)`), nor would it reach the backward pass.
        flat = flat.to(torch.get_autocast_dtype(device))
    total = _ChunkedCrossEntropy.apply(flat, head, targets.flatten(), torch.is_grad_enabled(), smoothing)
    assert isinstance(total, Tensor)
    return total, (targets != IGNORE_INDEX).sum()


def chunk_rows(vocab_size: int, device: torch.device) -> int:
    """Return how many rows of logits to hold at a time on `device`."""
    return max(FEWEST_ROWS, (CHUNK if device.type == "cpu" else CHUNK_OF_GPU) // vocab_size)


SoftmaxLoss = Callable[[Tensor, Tensor, Tensor, float, bool], tuple[Tensor, Tensor | None]]
"""Of logits (n, V), targets (n,) and what counts (n,): the summed loss, fp32, and its gradient (n, V) if that is wanted."""


def _softmax_loss(
    logits: Tensor, target: Tensor, counted: Tensor, smoothing: float, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """See `SoftmaxLoss`."""
    dtype, target, counts = logits.dtype, target[:, None], counted[:, None]
    logits = logits.float()
    logits -= logits.amax(-1, keepdim=True)
    chosen = logits.gather(-1, target)
    if smoothing:
        chosen = chosen.lerp_(logits.mean(-1, keepdim=True), smoothing)
    shares = logits.exp_()
    norm = shares.sum(-1, keepdim=True)
    loss = ((norm.log() - chosen) * counts).sum()
    if not with_gradient:
        return loss, None
    # d loss / d logits is the softmax, less one at the target (or less what smoothing makes of that).
    shares *= counts / norm
    shares.scatter_add_(-1, target, (smoothing - 1) * counts.float())
    if smoothing:
        shares -= counts * (smoothing / logits.shape[-1])
    return loss, shares.to(dtype)


def _softmax_loss_in_a_kernel(
    logits: Tensor, target: Tensor, counted: Tensor, smoothing: float, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """See `SoftmaxLoss`; on NVIDIA GPUs."""
    from lucidlm.model import loss_kernels

    losses = loss_kernels.softmax_loss(logits, target, counted, smoothing, with_gradient=with_gradient)
    return losses.sum(), logits if with_gradient else None


def _softmax_loss_for(device: torch.device) -> SoftmaxLoss:
    in_a_kernel = device.type == "cuda" and find_spec("triton") is not None
    return _softmax_loss_in_a_kernel if in_a_kernel else _softmax_loss


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Cross-entropy of a linear head; its gradients are taken chunk by chunk along with the loss."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, with_gradients: bool, smoothing: float
    ) -> Tensor:
        counted = targets != IGNORE_INDEX
        safe = targets.where(counted, 0)
        weight = head.to(hidden.dtype)
        total = hidden.new_zeros((), dtype=torch.float32)
        d_hidden = torch.empty_like(hidden) if with_gradients else None
        d_head: Tensor | None = None
        rows = chunk_rows(len(head), hidden.device)
        softmax_loss = _softmax_loss_for(hidden.device)
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            states, target, counts = hidden[part], safe[part], counted[part]
            loss, gradient = softmax_loss(states @ weight.T, target, counts, smoothing, d_hidden is not None)
            total += loss
            if d_hidden is None or gradient is None:
                continue
            torch.mm(gradient, weight, out=d_hidden[part])
            if d_head is None:
                d_head = (gradient.T @ states).float()
            elif d_head.dtype == gradient.dtype:
                d_head.addmm_(gradient.T, states)  # no copy of it for each chunk
            else:
                d_head += gradient.T @ states
        ctx.gradients = d_hidden, d_head
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        (scale,) = outputs
        d_hidden, d_head = ctx.gradients
        ctx.gradients = None  # they are scaled in place, so they can be taken once only
        # Without a counted position there was no chunk, and no gradient of the head.
        return d_hidden.mul_(scale), None if d_head is None else d_head.mul_(scale), None, None, None
