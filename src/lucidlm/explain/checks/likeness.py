"""How alike two attributions of one prediction are: whether methods agree, and whether one is stable."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import rankdata

from lucidlm.explain.attribution.methods import ANY_MODEL, BLANKED, Method, attribute, refusal
from lucidlm.explain.prediction import Prediction

FEWEST = 4
"""Pieces without which a rank correlation says nothing."""


@dataclass(frozen=True)
class Likeness:
    """Spearman's rank correlation of two attributions, with Fisher's interval of 95 %.

    Parameters
    ----------
    other: what the attribution is compared with.
    """

    other: str
    value: float
    low: float
    high: float

    def written(self) -> str:
        """Return it as text."""
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def likeness(other: str, first: np.ndarray, second: np.ndarray) -> Likeness | None:
    """Compare attributions (pieces,) of the same pieces; None where there are too few, or all are equal."""
    value = rank_correlation(first, second)
    if len(first) < FEWEST or math.isnan(value):
        return None
    # The variance of Fisher's z of a rank correlation: Bonett & Wright 2000.
    middle, reach = (
        math.atanh(min(max(value, -0.9999), 0.9999)),
        1.96 * math.sqrt((1 + value**2 / 2) / (len(first) - 3)),
    )
    return Likeness(other, value, math.tanh(middle - reach), math.tanh(middle + reach))


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's rank correlation of two arrays (n,); NaN where one is constant."""
    ranks = [rankdata(values) for values in (first, second)]
    if min(part.std() for part in ranks) == 0:
        return math.nan
    return float(np.corrcoef(*ranks)[0, 1])


def agreement(prediction: Prediction, method: Method, values: np.ndarray) -> Likeness | None:
    """Compare attributions with those of a method of another kind: of gradients, or of readings where it is of them."""
    rivals: tuple[Method, ...] = ("relevance", "occlusion", "shapley") if method in ANY_MODEL else ("occlusion",)
    other: Method = next(name for name in rivals if name != method and refusal(prediction, name) is None)
    return likeness(other, values, attribute(prediction, other).values)


def stability(
    prediction: Prediction, method: Method, values: np.ndarray, *, steps: int = 50, seed: int = 0
) -> Likeness | None:
    """Compare attributions with those from another blank and other draws; None where the method has neither."""
    if method not in BLANKED or prediction.other_blank is None:
        return None
    blank, text = prediction.other_blank
    other = replace(prediction, blank=blank, blank_text=text)
    return likeness(text, values, attribute(other, method, steps=steps, seed=seed + 1).values)
