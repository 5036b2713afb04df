"""What changes when a head is taken out: the check of whether what is seen of heads matters for the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lucidlm.explain.inside.reading import Reading
from lucidlm.explain.inside.trace import Edit, Site


def mean_out(value: Tensor) -> Tensor:
    """Return activations (B, T, …) with each replaced by their mean over batch and positions."""
    return value.mean((0, 1), keepdim=True).expand_as(value)


def without_heads(heads: Sequence[tuple[int, int]]) -> list[tuple[Site, Edit]]:
    """Return the edits that take out heads, given as (layer, head): each puts out its mean, wherever it looks."""
    return [(Site("heads", layer, unit=head), mean_out) for layer, head in heads]


def without_each_head(reading: Reading, of: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Return the answer's logits (layers, H, V or labels) with one head taken out at a time, float64.

    Parameters
    ----------
    of: what is made of logits (B, V or labels), in their place; see `Reading.variants`.
    """
    config = reading.model.config

    def edits(rows: Tensor) -> list[tuple[Site, Edit]]:
        return [
            (Site("heads", layer), lambda value, layer=layer: _one_out(value, rows, layer * config.num_heads))
            for layer in sorted({int(row) // config.num_heads for row in rows})
        ]

    found = reading.variants(config.num_layers * config.num_heads, edits, reading.tokens, of)
    return found.unflatten(0, (config.num_layers, config.num_heads))


def _one_out(value: Tensor, rows: Tensor, first: int) -> Tensor:
    """Return heads' outputs (B, T, H, d), row i without head `rows[i] - first`, where there is such a head."""
    taken = torch.arange(value.shape[2], device=value.device) == (rows - first)[:, None]  # (B, H)
    means = value.mean(1, keepdim=True).expand_as(value)
    return torch.where(taken[:, None, :, None], means, value)
