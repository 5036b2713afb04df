"""Retrieval: rank many items for a query; what search and recommendation share.

The items are those of the examples evaluated on, each once. A model embeds items and queries, once each, and ranks by
cosine similarity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lucidlm.baselines.retrieval import AT_ONCE, RandomOrder, TfidfSearch, pool, rank
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.data.examples.records import Match, Ranking
from lucidlm.metrics.ranking_metrics import place_of, ranking_metrics
from lucidlm.metrics.statistics import Metric
from lucidlm.predict.embedder import TextEmbedder
from lucidlm.tasks.base.task import Baseline, Predictor, Task

SHOWN = 5
"""Items of a ranking that are shown to a person."""


class Ranker:
    """Ranks items by cosine similarity with the query: the mean of the vectors of its texts.

    Parameters
    ----------
    again: whether the texts of a query may be found as items too.
    """

    def __init__(self, embedder: TextEmbedder, again: bool) -> None:
        self.embedder, self.again, self.tokenizer = embedder, again, embedder.tokenizer

    def predict(self, examples: Sequence[Match], label: str | None = None) -> list[Ranking]:
        """Rank the items of all examples for each; shows progress if given a `label` for it."""
        items, embedder = pool(examples), self.embedder
        queried = list(dict.fromkeys(text for example in examples for text in example.query))
        encoded = [
            *embedder.encode(items, "document"),
            *embedder.encode(queried, "query" if self.again else "document"),
        ]
        distinct = {ids.tobytes(): ids for ids in encoded}  # a text of a query may be an item too
        row = {key: number for number, key in enumerate(distinct)}
        vectors = embedder.comparable(embedder.embed_encoded(list(distinct.values()), label))
        vectors = vectors[[row[ids.tobytes()] for ids in encoded]]
        place = {text: number for number, text in enumerate(queried, len(items))}
        means = np.stack([vectors[[place[text] for text in one.query]].mean(0) for one in examples])
        queries = embedder.comparable(means)
        found: list[Ranking] = []
        rows = max(1, AT_ONCE // len(items))
        for start in range(0, len(examples), rows):
            similarity = queries[start : start + rows] @ vectors[: len(items)].T
            found += rank(similarity, items, examples[start : start + rows], self.again)
        return found


@dataclass(frozen=True)
class Retrieval(Task[Match, Ranking]):
    """The one right item for a query or a history, among those of all examples."""

    answer: ClassVar[type] = Ranking

    again: ClassVar[bool] = True
    """Whether the texts of a query may be found as items too."""

    def key(self, example: Match) -> str:
        """Return all texts of the example; the text alone where it is its own query, as in pretraining."""
        return "\n".join(dict.fromkeys((*example.query, example.item)))

    def texts(self, example: Match) -> tuple[str, ...]:
        """Return the query and the item."""
        return (*example.query, example.item)

    def metrics(self, examples: Sequence[Match]) -> list[Metric]:
        """Return nDCG@10, mean reciprocal rank, and recall@1, 5 and 10."""
        return ranking_metrics(examples)

    def baselines(self) -> list[Baseline[Match, Ranking]]:
        """Return search by TF-IDF, and chance."""
        return [TfidfSearch(again=self.again), RandomOrder()]

    def predictor(self, loaded: LoadedModel) -> Predictor[Match, Ranking]:
        """Return what ranks by the vectors of a language model, tuned for this or as pretraining left it."""
        return Ranker(TextEmbedder.of(loaded), self.again)

    def show(self, example: Match, prediction: Ranking) -> dict[str, Any]:
        """Return the query, the right item, its place (from 1; None: not ranked) and the first few items."""
        query = example.query[0] if len(example.query) == 1 else list(example.query)
        return {
            "query": query,
            "item": example.item,
            "place": place_of(example, prediction),
            "found": list(prediction.items[:SHOWN]),
        }
