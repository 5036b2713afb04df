"""Baselines for search and recommendation: TF-IDF, random order and popularity.

Like a model, all rank the items of the examples that they are given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Self

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from lucidlm.core.seeds import numpy_generator
from lucidlm.data.examples.records import Match, Ranking
from lucidlm.data.scripts import separates_no_words

DEPTH = 100
"""Items in a ranking."""
AT_ONCE = 2**24
"""Similarities held at a time."""


class TfidfSearch:
    """Items by the cosine of their TF-IDF vectors with the query's, the texts of a history taken as one.

    Parameters
    ----------
    again: whether the texts of a query may be found as items too.
    """

    name = "TF-IDF"

    def __init__(self, again: bool = True) -> None:
        self.again = again

    def fit(self, training: Sequence[Match]) -> Self:
        """Learn nothing yet: weights come from the items that are searched."""
        return self

    def predict(self, examples: Sequence[Match]) -> list[Ranking]:
        """Return the most similar items; of equal ones the first."""
        items = pool(examples)
        by_character = separates_no_words(items)
        self.name = f"TF-IDF ({'character 1–2-grams' if by_character else 'words'})"
        vectorizer = TfidfVectorizer(
            analyzer="char" if by_character else "word",
            ngram_range=(1, 2) if by_character else (1, 1),
            sublinear_tf=True,
        )
        vectors = vectorizer.fit_transform(items)
        queries = vectorizer.transform([" ".join(example.query) for example in examples])
        found: list[Ranking] = []
        rows = max(1, AT_ONCE // len(items))
        for start in range(0, len(examples), rows):
            similarity = (queries[start : start + rows] @ vectors.T).toarray()
            found += rank(similarity, items, examples[start : start + rows], self.again)
        return found


class RandomOrder:
    """Items in any order."""

    name = "random order"

    def fit(self, training: Sequence[Match]) -> Self:
        """There is nothing to learn."""
        return self

    def predict(self, examples: Sequence[Match]) -> list[Ranking]:
        """Return items drawn by chance, the same at every call."""
        items, generator = pool(examples), numpy_generator(0, "random order")
        depth = min(DEPTH, len(items))
        drawn = (generator.choice(len(items), depth, replace=False) for _ in examples)
        return [Ranking(tuple(items[place] for place in row.tolist())) for row in drawn]


class Popularity:
    """Items by how often they occur in the training data; those of the history are ranked last."""

    name = "popularity"

    def fit(self, training: Sequence[Match]) -> Self:
        """Count the items, those of the histories too (every example repeats a part of its user's history)."""
        self.counts = Counter(item for example in training for item in {example.item, *example.query})
        return self

    def predict(self, examples: Sequence[Match]) -> list[Ranking]:
        """Return the most popular items; of equal ones the first."""
        order = sorted(pool(examples), key=lambda item: -self.counts[item])
        found = []
        for example in examples:
            owned = set(example.query)
            found.append(Ranking(tuple(sorted(order[: DEPTH + len(owned)], key=owned.__contains__)[:DEPTH])))
        return found


def rank(similarity: np.ndarray, items: Sequence[str], examples: Sequence[Match], again: bool) -> list[Ranking]:
    """Return each example's best `items` by `similarity` (examples, items), best first; of equal ones the first.

    Without `again` the texts of an example's query are left out.
    """
    if not again:
        places, similarity = {item: place for place, item in enumerate(items)}, similarity.copy()
        for row, example in zip(similarity, examples, strict=True):
            row[[places[text] for text in example.query if text in places]] = -np.inf
    found = []
    for scores in similarity:
        order: list[int] = np.argsort(-scores, kind="stable")[:DEPTH].tolist()
        found.append(Ranking(tuple(items[place] for place in order if scores[place] > -np.inf)))
    return found


def pool(examples: Sequence[Match]) -> list[str]:
    """Return the items of the examples, each once, in order."""
    return list(dict.fromkeys(example.item for example in examples))
