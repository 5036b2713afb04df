"""Evaluate a model and the task's baselines on the same examples, and write the results.

The model, the baselines and plug-ins all go through the same code. Of several ranks all answer, and the first one judges.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from lucidlm.core.devices import describe_machine
from lucidlm.core.errors import InputError, LucidError
from lucidlm.core.progress import log
from lucidlm.data.examples.records import ClassPrediction, MultiLabelPrediction
from lucidlm.distributed.ranks import ALONE, Ranks
from lucidlm.evaluate.answers import PARTIAL, answer_all
from lucidlm.evaluate.leakage import Leak
from lucidlm.evaluate.record import Evaluation, Measure, Score, digest, write_evaluation
from lucidlm.metrics.statistics import Metric, compare, estimate
from lucidlm.predict.classifier import TextClassifier
from lucidlm.tasks.base.task import Predictor, Task, unknown_to
from lucidlm.tasks.multi_label import MultiLabelClassification
from lucidlm.tasks.text_classification import TextClassification


@dataclass
class _Judged:
    """The scores of a model, and the sufficient statistics of each example, (n, s), by the metric's name."""

    score: Score
    statistics: dict[str, np.ndarray]


def evaluate_task(
    task: Task[Any, Any],
    predictor: Predictor[Any, Any],
    examples: Sequence[Any],
    *,
    name: str,
    data: str,
    training: Sequence[Any] = (),
    leakage: Sequence[Leak] = (),
    out: str | Path | None = None,
    fingerprint: str = "",
    resume: bool = True,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Evaluate `predictor` on `examples`, each of its branches if it has several, and baselines fitted on `training`.

    Parameters
    ----------
    name: of the model in the report.
    data: the source the examples were read from, as the user named it.
    training: the examples to fit baselines on; empty: no baselines, nor the branches of a model by themselves.
    leakage: the results of the leakage checks, for the record.
    out: where eval.json, predictions.jsonl and statistics.npz are written; None: nowhere.
    fingerprint: identifies the model, so that predictions of an interrupted evaluation are reused for this model only.
    resume: reuse such predictions; if false they are discarded.
    settings: the configuration, for the record.
    seed: of the bootstrap and of approximate randomisation.
    ranks: which of several processes this is. The first one judges and writes; all return the evaluation. `leakage`,
        `out` and what is in it matter to the first one only.

    Raises
    ------
    InputError: there are no examples, or fewer than ranks, or the classifier does not know a label (file and line are
        named).
    LucidError: the model's outputs are not finite; the disk is full.
    """
    began = time.perf_counter()
    if not examples:
        raise InputError("there are no examples to evaluate on", where=data, fix="Pass data that has some.")
    ranks.require_enough(len(examples), "examples to judge on")
    data_sha256 = digest(examples)
    labels: list[str] = []
    if isinstance(task, TextClassification | MultiLabelClassification):
        labels += getattr(predictor, "labels", ())
        task.label_ids([*examples, *training], labels)
    partial = None if out is None else Path(out) / PARTIAL
    if partial is not None and not resume and ranks.first:
        partial.unlink(missing_ok=True)
    key = hashlib.sha256(json.dumps([task.name, fingerprint, data_sha256]).encode()).hexdigest()
    start = time.perf_counter()
    label = f"{task.name}: {name}"
    answers = answer_all(task, predictor, examples, label=label, partial=partial, fingerprint=key, ranks=ranks)
    if not ranks.first:
        return cast(Evaluation, ranks.agreed(None))
    metrics = task.metrics(examples)
    model = _judge(name, metrics, examples, answers, start, seed)
    metrics = [metric for metric in metrics if metric.name in model.score.metrics]
    if not metrics:
        raise LucidError(f"nothing that {task.name} is judged by could be measured", where=data)

    branches = predictor.branches(examples, answers) if training and isinstance(predictor, TextClassifier) else {}
    rivals = [_judge(part, metrics, examples, found, start, seed) for part, found in branches.items()]
    for baseline in task.baselines() if training else ():
        start = time.perf_counter()
        given: list[Any] = baseline.fit(training).predict(examples)
        if isinstance(task, TextClassification):
            given = [_aligned(answer, labels, task) for answer in given]
        rivals.append(_judge(baseline.name, metrics, examples, given, start, seed))
    # Models are compared on the first metric, so it should be one that the baselines have too.
    metrics.sort(key=lambda metric: any(metric.name not in rival.score.metrics for rival in rivals))
    decisive, first = metrics[0].value, metrics[0].name
    baselines = []
    for rival in rivals:
        of_model = rival.score.name in branches
        comparable = first in rival.score.metrics
        found = compare(decisive, model.statistics[first], rival.statistics[first], seed=seed) if comparable else None
        baselines.append(rival.score.model_copy(update={"comparison": found, "branch": of_model}))

    long, tokenizer = getattr(predictor, "long_inputs", None), getattr(predictor, "tokenizer", None)
    unknown = None if tokenizer is None else unknown_to(tokenizer, task, examples)
    evaluation = Evaluation(
        task=task.name,
        data=data,
        data_sha256=data_sha256,
        examples=len(examples),
        measures=[
            Measure(name=m.name, higher_is_better=m.higher_is_better, percent=m.percent, signature=m.signature)
            for m in metrics
        ],
        model=model.score,
        baselines=baselines,
        labels=labels or None,
        confusion=_confusion(task, examples, answers, labels) if isinstance(task, TextClassification) else None,
        leakage=list(leakage),
        unknown=unknown,
        counts=long(examples) if long is not None else {},
        machine=describe_machine().as_dict(),
        seconds=time.perf_counter() - began,
        settings=dict(settings or {}),
    )
    if out is not None:
        scores = np.round(metrics[0].value(model.statistics[metrics[0].name]), 6).tolist()
        rows = [
            {**task.show(example, answer), "score": score, "where": example.where}
            for example, answer, score in zip(examples, answers, scores, strict=True)
        ]
        write_evaluation(evaluation, rows, model.statistics, out)
        assert partial is not None
        partial.unlink(missing_ok=True)
    if unknown is not None and unknown.characters:
        log(f"Careful: {unknown}.")
    for leak in leakage:
        if leak.overlapping or leak.copies:
            log(f"Careful: {leak}; the first is {leak.named[0].where}." if leak.named else f"Careful: {leak}.")
    return ranks.agreed(evaluation)


def _judge(
    name: str, metrics: Sequence[Metric], examples: Sequence[Any], answers: Sequence[Any], start: float, seed: int
) -> _Judged:
    seconds = time.perf_counter() - start
    for example, answer in zip(examples, answers, strict=True):
        if isinstance(answer, ClassPrediction | MultiLabelPrediction) and not np.isfinite(answer.probabilities).all():
            raise LucidError(
                f"{name} gives probabilities that are not finite",
                where=example.where,
                fix="Its weights are damaged: train again.",
            )
    shared: dict[Any, np.ndarray] = {}
    statistics = {}
    for metric in metrics:
        if metric.statistics not in shared:
            shared[metric.statistics] = metric.statistics(examples, answers)
        statistics[metric.name] = shared[metric.statistics]
        if not np.isfinite(statistics[metric.name]).all():
            raise LucidError(f"the {metric.name} of {name} is not finite", fix="Its weights are damaged: train again.")
    figures = {metric.name: estimate(metric.value, statistics[metric.name], seed=seed) for metric in metrics}
    # For example, a baseline that gives no probabilities has no perplexity.
    figures = {metric: figure for metric, figure in figures.items() if math.isfinite(figure.value)}
    return _Judged(Score(name=name, metrics=figures, seconds=seconds), statistics)


def _aligned(answer: ClassPrediction, labels: Sequence[str], task: TextClassification) -> ClassPrediction:
    """Return a baseline's prediction over the model's labels, in their order and spelling."""
    shares = dict.fromkeys(labels, 0.0)
    for label, probability in zip(answer.labels, answer.probabilities, strict=True):
        found = task.known_as(label, labels)
        assert found is not None  # all training labels were checked
        shares[found] += probability
    return ClassPrediction(tuple(labels), tuple(shares.values()))


def _confusion(
    task: TextClassification, examples: Sequence[Any], answers: Sequence[ClassPrediction], labels: Sequence[str]
) -> list[list[int]]:
    counts = [[0] * len(labels) for _ in labels]
    for row, answer in zip(task.label_ids(examples, labels), answers, strict=True):
        counts[row][labels.index(answer.label)] += 1
    return counts
