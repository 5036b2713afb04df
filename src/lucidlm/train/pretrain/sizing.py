"""One dial, depth, sets a model's size; and the machine and the time given set the dial."""

from __future__ import annotations

import time

import torch

from lucidlm.core.devices import Compute
from lucidlm.core.progress import log
from lucidlm.model.config import ModelConfig
from lucidlm.model.flops import flops_per_token

HEAD_WIDTH = 64
TOKENS_PER_WEIGHT = 20
"""Tokens that each weight of the blocks should be trained on (Hoffmann et al. 2022, arXiv:2203.15556)."""
UTILISATION = 0.6
"""Share of the matrix-product speed that training reaches; a cautious figure for small models."""
DEFAULT_DEPTH = 4
DEEPEST = 24


def model_of_depth(
    depth: int, vocab_size: int, context_length: int, *, width: int | None = None, masked: bool = False
) -> ModelConfig:
    """Return the default shape of `depth` layers: 64 wide for each (or `width`), heads of 64, an MLP of 8/3 the width.

    Blocks then hold about 49,000 * depth³ weights: 0.4 M at depth 2, 10.6 M at 6, 85 M at 12.
    """
    width = width or HEAD_WIDTH * depth
    make = ModelConfig.masked if masked else ModelConfig
    return make(
        vocab_size=vocab_size,
        embedding_dim=width,
        num_heads=max(1, width // HEAD_WIDTH),
        # 8/3 keeps the weights of an ungated MLP of four times the width; multiples of 64 suit matrix products.
        ff_dim=(width * 8 // 3 + 63) // 64 * 64,
        num_layers=depth,
        context_length=context_length,
    )


def choose_depth(minutes: float | None, vocab_size: int, compute: Compute, speed: float | None = None) -> int:
    """Return the greatest depth whose blocks can be trained on 20 tokens a weight in `minutes`.

    `speed` is what training reaches, in operations a second; None: what it reaches on this machine.
    """
    if minutes is None:
        return DEFAULT_DEPTH
    budget = (speed or UTILISATION * matmul_flops(compute)) * 60 * minutes
    chosen = 2
    for depth in range(2, DEEPEST + 1):
        config = model_of_depth(depth, vocab_size, context_length=256)
        weights = flops_per_token(config, 0, training=False) // 2 - vocab_size * config.embedding_dim
        if flops_per_token(config, 256) * TOKENS_PER_WEIGHT * weights > budget:
            break
        chosen = depth
    where = "this machine" if speed is None else "that machine"
    log(f"depth {chosen}: what {where} trains well in {minutes:g} minutes (--depth sets another)")
    return chosen


def matmul_flops(compute: Compute, size: int = 1024, repeats: int = 5) -> float:
    """Measure the speed of a square matrix product on `compute`, in operations per second: the best of `repeats`."""
    a = torch.randn(size, size, device=compute.device, dtype=compute.dtype)
    best = float("inf")
    for _ in range(repeats + 1):
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # reading an element waits for an accelerator to finish
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
