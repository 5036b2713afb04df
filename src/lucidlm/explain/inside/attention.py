"""Where heads look: attention weights, head by head, and whether a head matters for the answer at all."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from lucidlm.explain.inside.ablation import without_each_head
from lucidlm.explain.inside.reading import Reading
from lucidlm.explain.inside.trace import require_head, require_layer
from lucidlm.explain.inside.view import Grid, View


def attention(reading: Reading, layer: int | None = None, head: int | None = None) -> View:
    """Show the attention weights of a text, queries down and keys across; of all layers and heads that are not chosen.

    Attention weights say where a head looks, and not that the answer rests on it (Jain and Wallace 2019, arXiv:1902.10186).
    So beside them stands what the answer's distribution loses when each head is taken out, as a divergence in nats.

    Raises
    ------
    InputError: the model has no such layer or head.
    """
    config, labels = reading.model.config, reading.labels
    layers = range(config.num_layers) if layer is None else [require_layer(config, layer)]
    heads = range(config.num_heads) if head is None else [require_head(config, head)]
    found, logits = reading.record(["weights"])
    grids = [
        Grid(
            f"layer {one}, head {two}",
            labels,
            labels,
            found["weights", one][0, two].double().cpu().numpy(),
            None,
            (0, 1),
        )
        for one in layers
        for two in heads
    ]
    first = np.stack([grid.values[:, 0] for grid in grids])  # (heads, T)
    sink = float(first[:, 1:].mean()) if len(labels) > 1 else 1.0
    even = _even(len(labels), config.causal)
    figures: dict[str, Any] = {"weight_on_first_token": sink, "even_weight": even}
    verdict = [
        f"{100 * sink:.0f} % of the weight of later tokens rests on the first one, {reading.labels[0]!r}; even weights "
        f"would put {100 * even:.0f} % there."
    ]
    if logits.numel():
        lost = divergence(reading)
        top = divmod(int(lost.argmax()), lost.shape[1])
        grids.append(head_grid("what the answer loses without the head (nats)", lost))
        figures["most_needed"] = {"layer": top[0], "head": top[1], "nats": float(lost[top])}
        verdict.append(
            f"Weights say where a head looks, not that it matters: taking out layer {top[0]}, head {top[1]} changes the "
            f"answer most, by {lost[top]:.4f} nats; the median head by {np.median(lost):.4f}."
        )
    return View("attention", f"Attention: {reading.text}", tuple(grids), (*verdict, *reading.notes), figures)


def divergence(reading: Reading) -> np.ndarray:
    """Return what the answer's distribution loses without each head: the divergence from it (layers, H), in nats."""
    whole = reading.record([])[1].log_softmax(-1)

    def lost(logits: Tensor) -> Tensor:
        return (whole.exp() * (whole - logits.log_softmax(-1))).sum(-1)

    return without_each_head(reading, lost).cpu().numpy()


def head_grid(title: str, values: np.ndarray) -> Grid:
    """Return values of heads (layers, H) as a grid."""
    rows, columns = (
        tuple(f"{name} {index}" for index in range(count))
        for name, count in zip(("layer", "head"), values.shape, strict=True)
    )
    return Grid(title, rows, columns, values)


def _even(length: int, causal: bool) -> float:
    """Return the weight of the first token where later ones attend evenly to all that they may see."""
    if length == 1:
        return 1.0
    return float(np.mean([1 / (place + 1) for place in range(1, length)])) if causal else 1 / length
