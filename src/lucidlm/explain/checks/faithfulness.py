"""Faithfulness of attributions against chance: what deleting or keeping the most attributed pieces does to a prediction.

Comprehensiveness and sufficiency are those of ERASER (DeYoung et al. 2020, arXiv:1911.03429), areas under the curves of
deletion and insertion those of Petsiuk et al. 2018 (arXiv:1806.07421). All are in probabilities, and pieces are taken out
of the text, not blanked: what the attributions were computed with is not what they are judged by.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lucidlm.core.seeds import numpy_generator
from lucidlm.explain.prediction import Prediction

SHARES = (0.1, 0.2, 0.5, 0.8)
RATIONALES = 3
"""How many of the shares, from the first, are rationales: what comprehensiveness and sufficiency are the means of."""

DRAWS = 40


@dataclass(frozen=True)
class Figures:
    """What an order of the pieces does to the probability of the target.

    Parameters
    ----------
    comprehensiveness: the mean drop when the first pieces are deleted; high is good.
    sufficiency: the mean drop when only they are kept; low is good.
    deletion, insertion: the mean probability as more is deleted, low is good; as more is kept, high is good.
    """

    comprehensiveness: float
    sufficiency: float
    deletion: float
    insertion: float


@dataclass(frozen=True)
class Faithfulness:
    """The figures of attributions beside those of random orders.

    Parameters
    ----------
    sizes: how many pieces are deleted or kept.
    random: the mean figures of `draws` random orders, drawn from `seed`.
    low, high: within which the comprehensiveness of 95 % of them lies.
    p_value: of a permutation test: the share of orders with at least this comprehensiveness, the attributions' included.
    """

    sizes: tuple[int, ...]
    figures: Figures
    random: Figures
    low: float
    high: float
    draws: int
    seed: int
    p_value: float

    @property
    def better(self) -> bool:
        """Whether the attributions beat random orders at p < 0.05."""
        return self.p_value < 0.05

    def sentence(self) -> str:
        """Return what is found, in one sentence."""
        words = "better than random" if self.better else "NOT SHOWN to be better than random"
        return (
            f"{words}: deleting the most attributed pieces costs {100 * self.figures.comprehensiveness:.1f} points of "
            f"probability, random ones {100 * self.random.comprehensiveness:.1f} (95 % of them {100 * self.low:.1f} to "
            f"{100 * self.high:.1f}; p = {self.p_value:.3f}); keeping only them costs "
            f"{100 * self.figures.sufficiency:.1f}, random ones {100 * self.random.sufficiency:.1f}"
        )


class Deletion:
    """A prediction whose pieces are deleted, in orders that are to be compared with the same random ones."""

    def __init__(self, prediction: Prediction, seed: int = 0, draws: int = DRAWS) -> None:
        """Read what is left by `draws` random orders; the prediction must have two pieces or more that can be deleted."""
        self.prediction, self.seed, self.free = prediction, seed, _free(prediction)
        count = len(self.free)
        self.sizes = [min(count - 1, math.ceil(share * count)) for share in SHARES]
        self.whole = float(prediction.probabilities(prediction.scores([prediction.whole]))[0])
        draw = numpy_generator(seed, "faithfulness")
        self.random = self._curves([self.free[draw.permutation(count)] for _ in range(draws)])

    def judge(self, values: np.ndarray) -> Faithfulness:
        """Return the figures of attributions (pieces,), the largest first."""
        own = self._curves([self.free[np.argsort(-values[self.free], kind="stable")]])
        random = _drops(self.whole, self.random)
        p_value = (1 + int((random >= _drops(self.whole, own)[0] - 1e-12).sum())) / (1 + len(random))
        low, high = np.quantile(random, [0.025, 0.975])
        figures, chance = (_figures(self.whole, curves) for curves in (own, self.random))
        sizes = tuple(sorted(set(self.sizes)))
        return Faithfulness(sizes, figures, chance, float(low), float(high), len(random), self.seed, p_value)

    def _curves(self, orders: Sequence[np.ndarray]) -> np.ndarray:
        """Return probabilities (2, orders, sizes): with the first pieces of each order deleted, and with only them."""
        cuts = [(order[:size], order[size:]) for order in orders for size in self.sizes]
        rows = [self.prediction.without(part.tolist()) for parts in zip(*cuts, strict=True) for part in parts]
        return self.prediction.probabilities(self.prediction.scores(rows)).reshape(2, len(orders), len(self.sizes))


def faithfulness(prediction: Prediction, values: np.ndarray, seed: int = 0) -> Faithfulness | None:
    """Compare attributions (pieces,) with random orders; None where less than two pieces can be deleted."""
    return None if len(_free(prediction)) < 2 else Deletion(prediction, seed).judge(values)


def _free(prediction: Prediction) -> np.ndarray:
    """Return which pieces can be deleted, in order."""
    return np.array([index for index in range(len(prediction.pieces)) if index not in prediction.held], dtype=np.int64)


def _drops(whole: float, curves: np.ndarray) -> np.ndarray:
    """Return each order's comprehensiveness (orders,)."""
    return whole - curves[0, :, :RATIONALES].mean(-1)


def _figures(whole: float, curves: np.ndarray) -> Figures:
    deleted, kept = curves.mean(1)  # (sizes,) each
    # Nothing deleted is the whole text, and nothing kept is taken as the least that was.
    deletion, insertion = _area([whole, *deleted, deleted[-1]]), _area([kept[0], *kept, whole])
    comprehensiveness, sufficiency = (float(whole - curve[:RATIONALES].mean()) for curve in (deleted, kept))
    return Figures(comprehensiveness, sufficiency, deletion, insertion)


def _area(curve: Sequence[float]) -> float:
    """Return the area under a curve at shares 0, `SHARES` and 1, by trapezoids."""
    return float(np.diff([0.0, *SHARES, 1.0]) @ (np.array(curve[1:]) + np.array(curve[:-1])) / 2)
