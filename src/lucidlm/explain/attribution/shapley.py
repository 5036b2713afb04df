"""Shapley values by sampling orders (Castro et al. 2009; Štrumbelj & Kononenko 2010), each with its reverse.

A piece's value is what it adds to the score when it is shown after those before it in an order, the rest being blank, in
the mean over orders. An order and its reverse together vary less than two orders drawn apart (Mitchell et al. 2022,
arXiv:2104.12199).
"""

from __future__ import annotations

import numpy as np

from lucidlm.core.seeds import numpy_generator
from lucidlm.explain.attribution.attribution import Attribution, Completeness
from lucidlm.explain.prediction import Prediction

MOST_PAIRS = 6
TOKENS = 20_000
"""Tokens that are read about at most; one pair of orders is read whatever it takes."""


def shapley(prediction: Prediction, seed: int = 0) -> Attribution:
    """Return each piece's Shapley value in nats; they sum to the score less that of the blanked text, exactly."""
    count, draw = len(prediction.pieces), numpy_generator(seed, "shapley")
    pairs = min(MOST_PAIRS, max(1, TOKENS // (2 * count * len(prediction.ids))))
    drawn = [draw.permutation(count) for _ in range(pairs)]
    orders = [order for first in drawn for order in (first, first[::-1])]
    rows = [
        prediction.without(order[shown:].tolist(), prediction.blank) for order in orders for shown in range(1, count)
    ]
    scores = prediction.scores([prediction.blanked, prediction.whole, *rows])
    values = np.zeros(count)
    for order, between in zip(orders, scores[2:].reshape(len(orders), count - 1), strict=True):
        values[order] += np.diff([scores[0], *between, scores[1]]) / len(orders)
    explained = float(scores[1] - scores[0])
    return Attribution(values, Completeness(explained, float(values.sum()), 0.01, len(orders)))
