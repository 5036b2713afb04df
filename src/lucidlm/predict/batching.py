"""Batches of token sequences of unequal length: like ones together, padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from lucidlm.core.devices import tokens_at_once
from lucidlm.model.heads import Model

TOKENS_PER_BATCH = 4096
"""How many tokens, padding included, a CPU reads at once: of more a layer's activations leave its cache. With 16,384 MiniLM
read 4,000 tokens a second instead of 5,600, a model of 3 million parameters 26,600 instead of 31,800 (two Zen 4 cores)."""

PART_TOKENS = {"cpu": 150, "cuda": 4096}
"""How many tokens a training step reads in the time that one more part of its batch costs: on two cores of a Zen 5 each part
of a batch of SmolLM2 took as long as 130 tokens; on a GPU it is the time to launch all kernels once more."""


def tokens_per_batch(model: Model, max_length: int) -> int:
    """Return how many tokens a head on all states of `model` reads at once: `TOKENS_PER_BATCH`, or what the device holds.

    Parameters
    ----------
    max_length: of one input, since each token's attention scores grow with it.
    """
    config = model.config
    widths = 8 * config.embedding_dim + 3 * config.ff_dim + config.num_heads * max_length
    return tokens_at_once(next(model.parameters()).device, 4 * widths, TOKENS_PER_BATCH)


def bucket_by_length(encoded: Sequence[np.ndarray], tokens: int) -> Iterator[np.ndarray]:
    """Yield indices of texts of like length, as many as fit into `tokens` tokens when padded to the longest of them."""
    order = np.argsort([len(ids) for ids in encoded], kind="stable")
    start = 0
    for end in range(1, len(order) + 1):
        full = end == len(order) or (end + 1 - start) * len(encoded[order[end]]) > tokens
        if full:
            yield order[start:end]
            start = end


def cut_by_length(lengths: np.ndarray, device: torch.device) -> list[np.ndarray]:
    """Return the indices (n,) of texts in parts of like length, so cut that reading them all takes the least time.

    A part costs its tokens, padding included, and as much again as `PART_TOKENS`; dynamic programming finds the best cuts.
    """
    order = np.argsort(lengths, kind="stable")
    longest, overhead = lengths[order].tolist(), PART_TOKENS.get(device.type, PART_TOKENS["cuda"])
    cost, cut = [0.0], [0]  # of the first 0, 1, 2, … texts: the least cost, and where the last part begins
    for end in range(1, len(order) + 1):
        best = min((cost[start] + (end - start) * longest[end - 1] + overhead, start) for start in range(end))
        cost.append(best[0])
        cut.append(best[1])
    parts, end = [], len(order)
    while end:
        parts.append(order[cut[end] : end])
        end = cut[end]
    return parts[::-1]


def pad(encoded: Sequence[np.ndarray], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids (B, T) int64, padded on the right, and their lengths (B,) int64."""
    lengths = torch.tensor([len(ids) for ids in encoded])
    tokens = torch.full((len(encoded), int(lengths.max())), pad_id, dtype=torch.int64)
    for row, ids in enumerate(encoded):
        tokens[row, : len(ids)] = torch.from_numpy(np.asarray(ids, dtype=np.int64))
    return tokens, lengths
