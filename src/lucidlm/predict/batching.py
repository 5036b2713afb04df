"""Batches of token sequences of unequal length: like ones together, padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

TOKENS_PER_BATCH = 16_384
"""How many tokens, padding included, are read at once where memory allows it."""


def bucket_by_length(encoded: Sequence[np.ndarray], tokens: int) -> Iterator[np.ndarray]:
    """Yield indices of texts of like length, as many as fit into `tokens` tokens when padded to the longest of them."""
    order = np.argsort([len(ids) for ids in encoded], kind="stable")
    start = 0
    for end in range(1, len(order) + 1):
        full = end == len(order) or (end + 1 - start) * len(encoded[order[end]]) > tokens
        if full:
            yield order[start:end]
            start = end


def pad(encoded: Sequence[np.ndarray], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids (B, T) int64, padded on the right, and their lengths (B,) int64."""
    lengths = torch.tensor([len(ids) for ids in encoded])
    tokens = torch.full((len(encoded), int(lengths.max())), pad_id, dtype=torch.int64)
    for row, ids in enumerate(encoded):
        tokens[row, : len(ids)] = torch.from_numpy(np.asarray(ids, dtype=np.int64))
    return tokens, lengths
