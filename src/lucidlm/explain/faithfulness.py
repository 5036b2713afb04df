"""Faithfulness of attributions against chance: comprehensiveness (DeYoung et al. 2020, ERASER, arXiv:1911.03429)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lucidlm.core.seeds import numpy_generator
from lucidlm.explain.predictions import Prediction

SHARES = (0.1, 0.2, 0.5)
DRAWS = 40


@dataclass(frozen=True)
class Faithfulness:
    """The mean drop of the score, in nats, when the number of pieces in each of `sizes` is deleted.

    Parameters
    ----------
    drop: with the most attributed pieces deleted first.
    random: with pieces deleted in random order, the mean of `draws` orders drawn from `seed`.
    p_value: of a permutation test: the share of orders with at least this drop, the attributions' own included.
    """

    sizes: tuple[int, ...]
    drop: float
    random: float
    draws: int
    seed: int
    p_value: float

    @property
    def better(self) -> bool:
        """Whether the attributions beat random orders at p < 0.05."""
        return self.p_value < 0.05


def faithfulness(prediction: Prediction, values: np.ndarray, seed: int = 0) -> Faithfulness | None:
    """Compare deleting the most attributed pieces, by `values` (n,), with deleting random ones; None for a single piece."""
    count = len(values)
    sizes = tuple(sorted({size for share in SHARES if (size := math.ceil(share * count)) < count}))
    if not sizes:
        return None
    draw = numpy_generator(seed, "faithfulness")
    orders: list[Sequence[int]] = [np.argsort(-values, kind="stable").tolist()]
    orders += [draw.permutation(count).tolist() for _ in range(DRAWS)]
    rows = [prediction.without(order[:size]) for order in orders for size in sizes]
    scores = prediction.scores([prediction.ids, *rows])
    drops = scores[0] - scores[1:].reshape(len(orders), len(sizes)).mean(1)
    p_value = (1 + int((drops[1:] >= drops[0]).sum())) / len(orders)
    return Faithfulness(sizes, float(drops[0]), float(drops[1:].mean()), DRAWS, seed, p_value)
