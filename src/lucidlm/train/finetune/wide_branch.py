"""Fitting the counted n-grams beside a fine-tuned Transformer: each branch by itself, then how much either counts.

The n-grams are weighed by naive Bayes (Wang and Manning 2012; see `lucidlm.baselines.naive_bayes`), and more than the plain
baseline counts: signs and single letters are words, word n-grams reach three words, characters inside words tell the stems
of short texts, and texts are scaled to one length. On held-out parts of the training data that gave 0.832 instead of 0.809
(SST-2), 0.868 instead of 0.862 (AG News), 0.889 instead of 0.881 (reviews of films), 0.864 instead of 0.863 (Chinese ones).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lucidlm.baselines.naive_bayes import count_ngrams, log_count_ratio
from lucidlm.data.scripts import FEW, separates_no_words
from lucidlm.model.ngrams import SHORT, NgramClassifier, NgramKind, NgramTable, WideBranch, ngram_counter

PRIOR = 0.5
"""What either branch's logits count where no held-out example says otherwise: their mean."""

INVERSE_REGULARISATION = 10.0
"""scikit-learn's C. On held-out parts of five data sets 3, 10 and 30 are within a point of each other."""

SOME = 0.1
"""The share of the texts, at least, that are short where the characters inside words are counted."""

ONE_OF = 8000
"""An n-gram is kept that at least two texts have and one in so many: rarer ones cost memory and add nothing."""


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


def fit_ngrams(texts: Sequence[str], truth: np.ndarray, labels: int) -> NgramClassifier:
    """Return the linear model of n-grams that tells so many `labels` apart, each from the rest.

    Parameters
    ----------
    truth: (texts,) int, each text's label.

    Raises
    ------
    InputError: all texts have one label, or there is no n-gram in them.
    """
    # Slow to import, and needed for fitting only.
    from scipy.sparse import hstack
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import normalize

    fewest = max(2, len(texts) // ONE_OF) if len(texts) > FEW else 1  # few texts repeat hardly any n-gram
    counters: dict[NgramKind, Any] = {kind: ngram_counter(kind, fewest=fewest) for kind in _kinds(texts)}
    found = count_ngrams(counters.values(), texts, len(np.unique(truth)))
    classes = [1] if labels == 2 else range(labels)
    ratios = [np.zeros((table.shape[1], len(classes)), np.float32) for table in found]
    weights, bias = [np.zeros_like(ratio) for ratio in ratios], np.zeros(len(classes), np.float32)
    for column, label in enumerate(classes):
        inside = truth == label
        features = []
        for table, ratio in zip(found, ratios, strict=True):
            ratio[:, column] = log_count_ratio(table, inside)
            features.append(normalize(table.multiply(ratio[:, column]).tocsr()))
        model = LogisticRegression(C=INVERSE_REGULARISATION, solver="liblinear").fit(hstack(features).tocsr(), inside)
        starts = np.cumsum([len(ratio) for ratio in ratios])[:-1]
        for weight, part in zip(weights, np.split(model.coef_[0], starts), strict=True):
            weight[:, column] = part
        bias[column] = np.ravel(model.intercept_)[0]
    tables = (
        NgramTable(kind, tuple(counter.get_feature_names_out().tolist()), ratio, weight)
        for (kind, counter), ratio, weight in zip(counters.items(), ratios, weights, strict=True)
    )
    return NgramClassifier(tuple(tables), bias)


def _kinds(texts: Sequence[str]) -> tuple[NgramKind, ...]:
    if separates_no_words(texts):
        return ("characters",)
    short = sum(len(text) <= SHORT for text in texts)
    return ("words", "inside words") if short >= SOME * len(texts) else ("words",)
