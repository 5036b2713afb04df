"""Metrics of multi-label classification, as scikit-learn has them, and the thresholds that its labels are chosen by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lucidlm.data.examples.records import MultiLabelPrediction, MultiLabelText
from lucidlm.metrics.statistics import Metric, mean_of

FEWEST = 10
"""Texts that must have a label, and as many that must not, for a threshold of its own; fewer would be fitted to chance."""


def multi_label_metrics() -> list[Metric]:
    """Return the metrics of chosen labels: micro-F1 first, macro-F1, and the share of texts with exactly their labels.

    Macro-F1 is over the labels that some text has or is given, as scikit-learn's with `zero_division=nan`.
    """
    return [
        Metric("micro_f1", _counts, lambda sums: _f1(sums[..., 0], sums[..., 1])),
        Metric("macro_f1", _counts_by_label, _macro_f1),
        mean_of("exact_match", lambda example, answer: float(set(example.labels) == set(answer.chosen))),
    ]


def _counts(examples: Sequence[MultiLabelText], predictions: Sequence[MultiLabelPrediction]) -> np.ndarray:
    """Return (n, 2): the labels rightly chosen, and those chosen plus those that are right."""
    pairs = zip(examples, predictions, strict=True)
    both = [(set(example.labels), set(prediction.chosen)) for example, prediction in pairs]
    return np.array([(len(right & chosen), len(right) + len(chosen)) for right, chosen in both], dtype=np.float64)


def _counts_by_label(examples: Sequence[MultiLabelText], predictions: Sequence[MultiLabelPrediction]) -> np.ndarray:
    """Return (n, 2 k): likewise for each of k labels, first of all labels the one figure, then the other."""
    found = {label for example in examples for label in example.labels}
    labels = list(dict.fromkeys([*predictions[0].labels, *sorted(found)]))
    right = indicators([example.labels for example in examples], labels)
    chosen = indicators([prediction.chosen for prediction in predictions], labels)
    return np.hstack([right & chosen, right.astype(np.float64) + chosen])


def indicators(chosen: Sequence[Sequence[str]], labels: Sequence[str]) -> np.ndarray:
    """Return which of `labels` each text has, bool (n, k)."""
    place = {label: index for index, label in enumerate(labels)}
    found = np.zeros((len(chosen), len(labels)), dtype=bool)
    for row, names in zip(found, chosen, strict=True):
        row[[place[name] for name in names]] = True
    return found


def _f1(hits: np.ndarray, involved: np.ndarray) -> np.ndarray:
    """F1 of right choices and of choices plus right labels; 0 where there are none of these."""
    return 2 * hits / np.maximum(involved, 1)


def _macro_f1(sums: np.ndarray) -> np.ndarray:
    hits, involved = np.split(sums, 2, axis=-1)
    return _f1(hits, involved).sum(-1) / np.maximum((involved > 0).sum(-1), 1)


def f1_thresholds(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return for each label the threshold of its probability that gives the highest F1, float64 (k,).

    It lies midway between the last probability that is chosen and the next one (Lipton et al. 2014, arXiv:1402.1892). It
    is 0.5 where that is as good, and where fewer than `FEWEST` texts have the label or have it not.

    Parameters
    ----------
    truth, probabilities: of texts that the model has not learned from, bool and float (n, k).
    """
    thresholds = np.full(truth.shape[1], 0.5)
    for label, (right, scores) in enumerate(zip(truth.T, probabilities.T, strict=True)):
        if min(right.sum(), len(right) - right.sum()) < FEWEST:
            continue
        order = np.argsort(-scores, kind="stable")
        ordered = np.append(scores[order], 0.0)
        f1 = _f1(np.cumsum(right[order]), right.sum() + np.arange(1, len(order) + 1))
        f1[ordered[:-1] == ordered[1:]] = -1  # equal probabilities are chosen together
        best = int(np.argmax(f1))
        if f1[best] > _f1((right & (scores >= 0.5)).sum(), right.sum() + (scores >= 0.5).sum()):
            thresholds[label] = (ordered[best] + ordered[best + 1]) / 2
    return thresholds
