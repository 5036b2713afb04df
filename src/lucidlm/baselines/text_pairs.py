"""Baselines for pairs of texts: what their words have in common, and the mean.

How much two texts overlap says something of whether they mean the same, and less of whether one follows from the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lucidlm.baselines.classifiers import ngram_vectorizer
from lucidlm.core.errors import InputError
from lucidlm.data.examples.records import ClassPrediction, LabelledPair, NumberPrediction, ScoredPair, TwoTexts
from lucidlm.data.scripts import words


class Overlap:
    """Five figures of how much two texts have in common.

    The cosine of their TF-IDF vectors, of n-grams; the share of all words that both have (Jaccard); the share of each
    one's words that the other has; and how much longer the first is. A character of a script without spaces is a word.
    """

    def fit(self, examples: Sequence[TwoTexts]) -> Self:
        """Learn the weights of words.

        Raises
        ------
        InputError: the texts have no n-grams.
        """
        texts = [text for example in examples for text in (example.text, example.other)]
        self.vectorizer, _ = ngram_vectorizer(texts)
        try:
            self.vectorizer.fit(texts)
        except ValueError as error:
            what = f"the baseline cannot learn from the training data ({error})"
            raise InputError(what, fix="Pass more of it.") from None
        return self

    def __call__(self, examples: Sequence[TwoTexts]) -> np.ndarray:
        """Return the figures, float64 (n, 5)."""
        first: Any = self.vectorizer.transform([example.text for example in examples])
        second = self.vectorizer.transform([example.other for example in examples])
        cosines = np.asarray(first.multiply(second).sum(1)).ravel()
        return np.column_stack([cosines, [_shares(example.text, example.other) for example in examples]])


def _shares(text: str, other: str) -> tuple[float, float, float, float]:
    first, second = words(text), words(other)
    one, two = set(first), set(second)
    both, longer = len(one & two), np.log((1 + len(first)) / (1 + len(second)))
    return both / max(1, len(one | two)), both / max(1, len(one)), both / max(1, len(two)), float(longer)


class OverlapClassifier:
    """Logistic regression over the overlap of two texts."""

    name = "word overlap + logistic regression"

    def fit(self, training: Sequence[LabelledPair]) -> Self:
        """Fit to the training data.

        Raises
        ------
        InputError: all of the data has one label, or the texts have no words.
        """
        self.overlap = Overlap().fit(training)
        self.model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        try:
            self.model.fit(self.overlap(training), [example.label for example in training])
        except ValueError as error:  # one class
            what = f"the baseline cannot learn from the training data ({error})"
            raise InputError(what, fix="Pass more of it, with two labels or more.") from None
        return self

    def predict(self, examples: Sequence[LabelledPair]) -> list[ClassPrediction]:
        """Give each pair the probabilities of the labels of the training data."""
        rows, labels = self.model.predict_proba(self.overlap(examples)), tuple(map(str, self.model.classes_))
        return [ClassPrediction(labels, tuple(row)) for row in rows.tolist()]


class MeanScore:
    """The mean of the training data's numbers for every pair."""

    name = "mean"

    def fit(self, training: Sequence[ScoredPair]) -> Self:
        """Take the mean."""
        self.mean = float(np.mean([example.score for example in training]))
        return self

    def predict(self, examples: Sequence[ScoredPair]) -> list[NumberPrediction]:
        """Give every pair the same number."""
        return [NumberPrediction(self.mean)] * len(examples)


class OverlapRegression:
    """Ridge regression over the overlap of two texts."""

    name = "word overlap + linear regression"

    def fit(self, training: Sequence[ScoredPair]) -> Self:
        """Fit to the training data.

        Raises
        ------
        InputError: the texts have no words.
        """
        self.overlap = Overlap().fit(training)
        self.model = make_pipeline(StandardScaler(), Ridge())
        self.model.fit(self.overlap(training), [example.score for example in training])
        return self

    def predict(self, examples: Sequence[ScoredPair]) -> list[NumberPrediction]:
        """Give each pair the number that its overlap speaks for."""
        return [NumberPrediction(value) for value in self.model.predict(self.overlap(examples)).tolist()]
