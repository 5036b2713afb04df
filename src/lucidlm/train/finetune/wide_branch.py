"""Fitting the counted n-grams beside a fine-tuned Transformer: each branch by itself, then how much either counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lucidlm.model.ngrams import WideBranch
from lucidlm.train.finetune.ngram_fit import fit_ngrams

PRIOR = 0.5
"""What either branch's logits count where no held-out example says otherwise: their mean."""


def fit_wide_branch(
    texts: Sequence[str],
    truth: np.ndarray,
    labels: int,
    held_out: Sequence[str],
    deep: np.ndarray,
    held_out_truth: np.ndarray,
) -> WideBranch:
    """Fit n-grams to the training texts, and the weights of both branches to held-out ones.

    The weights minimise the held-out cross-entropy, with a normal prior of one around the logarithm of `PRIOR`, which
    decides where few examples are held out.

    Parameters
    ----------
    truth, held_out_truth: the label numbers of `texts` and of `held_out`.
    deep: (held_out, labels) the Transformer's logits.
    """
    # Slow to import, and needed for fitting only.
    from scipy.optimize import minimize

    ngrams = fit_ngrams(texts, truth, labels)
    if not held_out:
        return WideBranch(ngrams, PRIOR, PRIOR)
    branches = np.stack((deep, ngrams.logits(held_out)))  # (2, held_out, labels)

    def cost(logarithms: np.ndarray) -> float:
        logits = np.tensordot(np.exp(logarithms), branches, 1)
        right = logits[np.arange(len(logits)), held_out_truth]
        return float((np.logaddexp.reduce(logits, 1) - right).sum() + ((logarithms - np.log(PRIOR)) ** 2).sum() / 2)

    deep_scale, wide_scale = np.exp(minimize(cost, np.log([PRIOR, PRIOR])).x).tolist()
    return WideBranch(ngrams, deep_scale, wide_scale)
