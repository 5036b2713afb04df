"""Whether attributions are any better than chance: comprehensiveness (DeYoung et al. 2020, ERASER, arXiv:1911.03429)."""

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
    """How far the score falls when pieces are deleted, in nats, on average over the numbers of pieces in `sizes`.

    Parameters
    ----------
    drop: the most attributed pieces deleted; random: the mean of `draws` random orders, drawn from `seed`.
    p_value: the share of orders that do as well, this one counted among them.
    """

    sizes: tuple[int, ...]
    drop: float
    random: float
    draws: int
    seed: int
    p_value: float

    @property
    def better(self) -> bool:
        """Whether random orders hardly ever do as well."""
        return self.p_value < 0.05


def faithfulness(prediction: Prediction, values: np.ndarray, seed: int = 0) -> Faithfulness | None:
    """Delete the most attributed pieces, and as many at random; None for a single piece, which leaves no choice."""
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
