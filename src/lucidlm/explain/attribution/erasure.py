"""Erasure: pieces are blanked one after the other, each time the one whose loss costs most (Li et al. 2016,
arXiv:1612.08220; Zhou & Shah 2023, arXiv:2205.08696, who search explanations by what deletion does).

Words that stand in for each other are found, which occlusion, blanking one at a time, misses: where either of two is enough,
neither costs anything alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lucidlm.explain.attribution.attribution import Attribution, Completeness
from lucidlm.explain.prediction import Prediction

TOKENS = 20_000
"""Tokens that are read about at most, one round of all pieces whatever it takes: the more a text has, the more of its pieces
are blanked at a time."""


def erasure(prediction: Prediction) -> Attribution:
    """Return what fell with each piece, in nats, those before it being gone; they sum to the score less that of the
    blanked text, exactly.

    Where a piece cost more than the one before it, the two needed each other and share it alike, so that the order of the
    values is that in which pieces went.
    """
    count, at_once = len(prediction.pieces), _at_once(prediction)
    gone: list[int] = []
    drops: list[float] = []
    whole = score = float(prediction.scores([prediction.whole])[0])
    while len(gone) < count:
        left = [piece for piece in range(count) if piece not in gone]
        scores = prediction.scores([prediction.without([*gone, piece], prediction.blank) for piece in left])
        chosen = np.argsort(scores, kind="stable")[:at_once]
        gone += [left[place] for place in chosen]
        after = float(scores[chosen[0]])
        if len(chosen) > 1:  # what they cost together is shared as what each costs alone
            after = float(prediction.scores([prediction.without(gone, prediction.blank)])[0])
        drops += _shared(score - after, score - scores[chosen])
        score = after
    values = np.empty(count)
    values[gone] = _falling(drops)
    return Attribution(values, Completeness(whole - score, float(values.sum()), 0.01))


def one_by_one(prediction: Prediction) -> bool:
    """Return whether a text is short enough for its pieces to be blanked one by one: some 34 tokens, or 20 to 30 words."""
    return _at_once(prediction) == 1


def _at_once(prediction: Prediction) -> int:
    """Return how many pieces are blanked at a time."""
    count = len(prediction.pieces)
    rounds = max(1, 2 * TOKENS // (count * len(prediction.ids)))
    return -(-count // rounds)


def _shared(total: float, alone: np.ndarray) -> list[float]:
    """Return parts of a total that differ as those `alone` do."""
    return list(alone + (total - alone.sum()) / len(alone))


def _falling(drops: Sequence[float]) -> np.ndarray:
    """Return the nearest values that fall: neighbours that rise are replaced by their mean."""
    from sklearn.isotonic import isotonic_regression  # slow to import

    values = isotonic_regression(drops, increasing=False)
    for place in range(1, len(values)):
        if values[place] and values[place] >= values[place - 1]:  # by the smallest step: the first to go stays first
            values[place] = np.nextafter(values[place - 1], -np.inf)
    return values
