"""Baselines for multi-label classification: the commonest set of labels, and a linear model for each label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Self

import numpy as np
from sklearn.linear_model import LogisticRegression

from lucidlm.baselines.classifiers import ngram_vectorizer
from lucidlm.core.errors import InputError
from lucidlm.core.seeds import numpy_generator
from lucidlm.data.examples.records import MultiLabelPrediction, MultiLabelText
from lucidlm.metrics.multi_label_metrics import FEWEST, f1_thresholds, indicators

HELD_OUT = 0.2
"""Share of the training texts that thresholds are chosen on, before the model is fitted to all of them."""


class CommonestLabelSet:
    """Gives every text the set of labels that most training texts have, which may be none."""

    name = "commonest set of labels"

    def fit(self, training: Sequence[MultiLabelText]) -> Self:
        """Count the sets; of equally common ones the first is taken."""
        self.labels = tuple(sorted({label for example in training for label in example.labels}))
        self.chosen = Counter(frozenset(example.labels) for example in training).most_common(1)[0][0]
        return self

    def predict(self, examples: Sequence[MultiLabelText]) -> list[MultiLabelPrediction]:
        """Give every text the same answer."""
        sure = tuple(float(label in self.chosen) for label in self.labels)
        return [MultiLabelPrediction(self.labels, sure, (0.5,) * len(sure))] * len(examples)


class TfidfPerLabel:
    """For each label a logistic regression over TF-IDF of n-grams, with a threshold chosen on a fifth of the texts."""

    name = "TF-IDF + logistic regression"

    def fit(self, training: Sequence[MultiLabelText]) -> Self:
        """Fit to the training data: to four fifths for the thresholds, where there are enough texts, then to all.

        Raises
        ------
        InputError: there is no n-gram in the texts.
        """
        self.labels = tuple(sorted({label for example in training for label in example.labels}))
        texts = [example.text for example in training]
        truth = indicators([example.labels for example in training], self.labels)
        order = numpy_generator(0, "thresholds").permutation(len(texts))
        held_out, rest = np.split(order, [round(HELD_OUT * len(order))])
        self.thresholds = (0.5,) * len(self.labels)
        if len(held_out) >= 2 * FEWEST:
            self._fit([texts[row] for row in rest], truth[rest])
            probabilities = self._probabilities([texts[row] for row in held_out])
            self.thresholds = tuple(f1_thresholds(truth[held_out], probabilities).tolist())
        self._fit(texts, truth)
        return self

    def _fit(self, texts: list[str], truth: np.ndarray) -> None:
        self.vectorizer, self.name = ngram_vectorizer(texts)
        try:
            vectors = self.vectorizer.fit_transform(texts)
        except ValueError as error:  # no n-gram at all
            fix = "Pass more of it."
            raise InputError(f"the baseline cannot learn from the training data ({error})", fix=fix) from None
        # A label that all texts have, or none, is no question.
        self.models = [
            float(column[0])
            if column.all() or not column.any()
            else LogisticRegression(C=10, max_iter=1000).fit(vectors, column)
            for column in truth.T
        ]

    def _probabilities(self, texts: list[str]) -> np.ndarray:
        """Return the probability of each label for each text, float64 (n, k)."""
        vectors, found = self.vectorizer.transform(texts), np.zeros((len(texts), len(self.labels)))
        for label, model in enumerate(self.models):
            learned = isinstance(model, LogisticRegression)
            found[:, label] = model.predict_proba(vectors)[:, 1] if learned else model
        return found

    def predict(self, examples: Sequence[MultiLabelText]) -> list[MultiLabelPrediction]:
        """Give each text the probabilities of the labels of the training data, and their thresholds."""
        rows = self._probabilities([example.text for example in examples])
        return [MultiLabelPrediction(self.labels, tuple(row), self.thresholds) for row in rows.tolist()]
