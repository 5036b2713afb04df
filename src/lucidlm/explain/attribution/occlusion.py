"""Occlusion: how much the score falls when a piece is replaced by the blank (Li et al. 2016, arXiv:1612.08220)."""

from __future__ import annotations

from lucidlm.explain.attribution.attribution import Attribution
from lucidlm.explain.prediction import Prediction


def occlusion(prediction: Prediction) -> Attribution:
    """Return each piece's attribution in nats. No gradient is taken, and they sum to nothing in particular."""
    rows = [prediction.without([index], prediction.blank) for index in range(len(prediction.pieces))]
    scores = prediction.scores([prediction.whole, *rows])
    return Attribution(scores[0] - scores[1:])
