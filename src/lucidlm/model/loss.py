"""The loss every language model is trained with, kept as a sum and a count.

Means are taken only once, over all counted tokens of the global batch: a mean of means would weigh a token by the
company it keeps.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

IGNORED = -100
"""The target that marks a position as not counted."""


def token_losses(hidden: Tensor, head: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy in nats and the number of counted positions, both scalars.

    Parameters
    ----------
    hidden: (B, T, D) final hidden states.
    head: (V, D) output embedding.
    targets: (B, T) int64 token ids, `IGNORED` where nothing is to be predicted.
    """
    hidden, targets = hidden.flatten(0, 1), targets.flatten()
    logits = functional.linear(hidden, head).float()  # (B * T, V)
    total = functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
    return total, (targets != IGNORED).sum()
