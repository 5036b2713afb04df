"""Metrics of rankings with one right item.

With one right item, recall at k is the share of queries that have it among their first k, and nDCG at k is one over the
binary logarithm of its place plus one (Järvelin and Kekäläinen 2002: the ideal ranking has a gain of 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lucidlm.data.examples.records import Match, Ranking
from lucidlm.metrics.statistics import Metric, mean_of

DEPTHS = (1, 5, 10)


def ranking_metrics(examples: Sequence[Match]) -> list[Metric]:
    """Return nDCG@10, the mean reciprocal rank and recall@1, 5 and 10; an item that is not ranked counts 0."""
    return [
        mean_of("ndcg@10", lambda example, ranking: discounted_gain(place_of(example, ranking), 10)),
        mean_of("mrr", lambda example, ranking: 1 / place if (place := place_of(example, ranking)) else 0.0),
        *(_recall(depth) for depth in DEPTHS),
    ]


def place_of(example: Match, ranking: Ranking) -> int | None:
    """Return the place of the right item, counted from 1; None if it is not ranked."""
    return ranking.items.index(example.item) + 1 if example.item in ranking.items else None


def discounted_gain(place: int | None, depth: int) -> float:
    """Return nDCG at `depth` of a ranking that has its one right item at `place`."""
    return 1 / math.log2(place + 1) if place and place <= depth else 0.0


def _recall(depth: int) -> Metric:
    return mean_of(f"recall@{depth}", lambda example, ranking: float(example.item in ranking.items[:depth]))
