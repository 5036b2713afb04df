"""Attributions by gradients over the input embeddings, at the text alone or along a path to it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lucidlm.explain.attribution.attribution import Attribution, Completeness
from lucidlm.explain.prediction import Prediction, Score

TOKENS_AT_ONCE = 2048
"""Tokens that are read and differentiated at once."""

TOLERANCE = 0.05
"""The largest error of the sum, as a share of the difference that it should be."""

DOUBLINGS = 2


def gradient_times_input(prediction: Prediction) -> Attribution:
    """Return each piece's gradient times its embeddings (Shrikumar et al. 2016, arXiv:1605.01713), in nats.

    It is what the score would change by if it were linear and the vectors went to zero.
    """
    vectors = prediction.embedding(prediction.ids)[None].detach()
    return Attribution(prediction.by_piece((gradients(prediction, prediction.score, vectors) * vectors)[0].sum(-1)))


def integrated_gradients(prediction: Prediction, steps: int = 50) -> Attribution:
    """Return each piece's integrated gradient (Sundararajan et al. 2017, arXiv:1703.01365) from the blanked text, in nats.

    The integral is taken at the points of Gauss and Legendre. `steps` are doubled, twice at most, until the sum is within
    `TOLERANCE` of the score less that of the blanked text, or within 0.01 nats.
    """
    ends = prediction.ids, prediction.blanked.tokens
    full, empty = (prediction.embedding(tokens).detach() for tokens in ends)  # (T, D)
    with torch.inference_mode():
        difference = float(torch.sub(*prediction.score(torch.stack(ends)).double()))
    tolerance = max(0.01, TOLERANCE * abs(difference))
    for doubling in range(DOUBLINGS + 1):
        taken = steps * 2**doubling
        values = prediction.by_piece((_mean_gradient(prediction, empty, full, taken) * (full - empty)).sum(-1))
        check = Completeness(difference, float(values.sum()), tolerance, taken)
        if check.reached:
            break
    return Attribution(values, check)


def gradients(prediction: Prediction, score: Score, vectors: Tensor) -> Tensor:
    """Return the gradients (B, T, D) of `score` in the `vectors` (B, T, D) that are read in place of the text's."""
    variable = vectors.detach().requires_grad_()
    with torch.enable_grad(), prediction.reading(variable):
        found = score(prediction.ids.expand(len(vectors), -1)).sum()
    return torch.autograd.grad(found, variable)[0]


def _mean_gradient(prediction: Prediction, empty: Tensor, full: Tensor, steps: int) -> Tensor:
    """Return the mean gradient (T, D) on the way from `empty` to `full`, (T, D) both."""
    points, weights = (torch.from_numpy(part).to(full) for part in np.polynomial.legendre.leggauss(steps))
    size = max(1, TOKENS_AT_ONCE // len(full))
    total = torch.zeros_like(full)
    for part, weight in zip(points.split(size), weights.split(size), strict=True):
        vectors = torch.lerp(empty, full, (part[:, None, None] + 1) / 2)  # (b, T, D)
        total += torch.einsum("b,btd->td", weight / 2, gradients(prediction, prediction.score, vectors))
    return total
