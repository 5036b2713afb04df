"""Integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365) over the input embeddings, by captum."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lucidlm.core.errors import InputError
from lucidlm.explain.predictions import TOKENS_AT_ONCE, Prediction

TOLERANCE = 0.05
"""The largest error of the sum, as a share of the difference that it should be."""

DOUBLINGS = 2


@dataclass(frozen=True)
class Completeness:
    """Whether attributions sum to the difference that they explain: how far the integral is from it, in nats."""

    steps: int
    difference: float
    delta: float
    reached: bool


def integrated_gradients(prediction: Prediction, steps: int = 50) -> tuple[np.ndarray, Completeness]:
    """Return each piece's attribution (pieces,) in nats; they sum to the score less that of the blanked text.

    `steps` are doubled, twice at most, until the sum is within `TOLERANCE` of that, or within 0.01 nats.

    Raises
    ------
    InputError: captum is not installed.
    """
    if importlib.util.find_spec("captum") is None:
        raise InputError("captum is not installed", fix="Install it: pip install 'lucidlm[explain]'.")
    from captum.attr import LayerIntegratedGradients

    ids, blanked = prediction.ids, prediction.blanked
    full, empty = prediction.scores([ids, blanked])
    # The variable is the layer's output, so a head that shares the embedding's weights is not differentiated.
    method = LayerIntegratedGradients(prediction.score, prediction.embedding)
    size = max(1, TOKENS_AT_ONCE // len(ids))
    for doubling in range(DOUBLINGS + 1):
        taken = steps * 2**doubling
        found = method.attribute(ids[None], blanked[None], n_steps=taken, internal_batch_size=size)
        assert isinstance(found, Tensor)  # the layer has one output
        by_token = found[0].double().sum(-1).detach().cpu().numpy()  # (T,) of (1, T, D)
        values = np.array([by_token[piece.places].sum() for piece in prediction.pieces])
        delta = float(values.sum() - (full - empty))
        reached = abs(delta) <= max(0.01, TOLERANCE * abs(full - empty))
        if reached:
            break
    return values, Completeness(taken, float(full - empty), delta, reached)
