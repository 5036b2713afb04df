"""Metrics of token tagging: F1, precision and recall of whole entities, as conlleval and seqeval compute them.

An entity counts as found if its type, its first and its last word all are right (Tjong Kim Sang and De Meulder 2003,
arXiv:cs/0306050); the counts of all types are added up. seqeval by itself has these figures for a whole file, not the
counts of each sentence that intervals and tests are made of. Unlike there, F1 is 1 where there is no entity and none was
found, so that a sentence without any can be right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lucidlm.data.examples.bio import entities
from lucidlm.data.examples.records import TaggedSentence, Tags
from lucidlm.metrics.statistics import Metric, ratio


def entity_metrics() -> list[Metric]:
    """Return F1, precision and recall of entities, and the share of tags that are right."""
    return [
        Metric("entity_f1", _found, _f1),
        Metric("entity_precision", _found, lambda sums: ratio(sums[..., [0, 1]])),
        Metric("entity_recall", _found, lambda sums: ratio(sums[..., [0, 2]])),
        Metric("token_accuracy", _right),
    ]


def _found(examples: Sequence[TaggedSentence], predictions: Sequence[Tags]) -> np.ndarray:
    """Return (n, 3): how many entities are found, how many are predicted, how many there are."""
    rows = []
    for example, prediction in zip(examples, predictions, strict=True):
        truth, predicted = set(entities(example.tags)), set(entities(prediction.tags))
        rows.append((len(truth & predicted), len(predicted), len(truth)))
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def _f1(sums: np.ndarray) -> np.ndarray:
    involved = sums[..., 1] + sums[..., 2]
    return np.where(involved > 0, 2 * sums[..., 0] / np.maximum(involved, 1e-12), 1.0)


def _right(examples: Sequence[TaggedSentence], predictions: Sequence[Tags]) -> np.ndarray:
    """Return (n, 2): how many tags are right, of how many."""
    rows = [
        (sum(map(str.__eq__, example.tags, prediction.tags)), len(example.tags))
        for example, prediction in zip(examples, predictions, strict=True)
    ]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)
