"""A classifier's explanations over a data set: which method to trust, and what drives each label."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.core.progress import track
from lucidlm.data.examples.config import TunedOn
from lucidlm.data.examples.records import ClassPrediction, LabelledText
from lucidlm.explain.attribution.methods import METHODS, Method, applicable, attribute
from lucidlm.explain.checks.faithfulness import Deletion, Faithfulness, Figures
from lucidlm.explain.checks.likeness import rank_correlation
from lucidlm.explain.explanation import frozen
from lucidlm.explain.pieces import Unit
from lucidlm.explain.prediction import Prediction
from lucidlm.explain.predictions import predict
from lucidlm.metrics.label_metrics import Reliability, confusion_cells, reliability
from lucidlm.metrics.statistics import Estimate, estimate, ratio
from lucidlm.model.heads import SequenceClassifier
from lucidlm.predict.classifier import TextClassifier
from lucidlm.tasks.base.shots import draw
from lucidlm.tasks.base.task import Task, read_examples, tasks
from lucidlm.tasks.text_classification import TextClassification

CONFIDENT = 0.9
"""The least probability of a confident prediction."""

WORDS = 12
"""The most words that are shown of a label."""


@dataclass(frozen=True)
class MethodFigures:
    """How faithful one method is over the texts; each figure with its bootstrap interval.

    Parameters
    ----------
    better: the share of confident predictions on which it beats random deletion at p < 0.05; None: none is confident.
    agreement: the mean rank correlation with the other methods.
    seconds: the mean time that a text takes.
    """

    method: Method
    comprehensiveness: Estimate
    sufficiency: Estimate
    deletion: Estimate
    insertion: Estimate
    better: Estimate | None
    agreement: Estimate | None
    seconds: float


@dataclass(frozen=True)
class Confusion:
    """A text that was taken for another label, and what each piece adds to that."""

    text: str
    label: str
    predicted: str
    probability: float
    pieces: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Survey:
    """What `survey` finds.

    Parameters
    ----------
    texts, left_out, confident: how many were explained, how many were not, being too long or of one piece, and how many
        of those explained have a probability of `CONFIDENT` or more.
    random: the mean figures of random orders.
    recommended: the method whose first pieces change the prediction most when deleted, and least when kept.
    words: for each label, what drives predictions of it: words, their mean attributions, and in how many texts.
    counts: (labels, labels), how often the label of each row was taken for that of each column.
    """

    model: str
    data: str
    by: Unit
    labels: tuple[str, ...]
    texts: int
    left_out: int
    confident: int
    methods: tuple[MethodFigures, ...]
    random: Figures
    recommended: Method
    words: dict[str, tuple[tuple[str, float, int], ...]]
    counts: tuple[tuple[int, ...], ...]
    confusions: tuple[Confusion, ...]
    reliability: Reliability

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        methods = [
            {
                name: value.model_dump() if isinstance(value, Estimate) else value
                for field in fields(MethodFigures)
                for name, value in [(field.name, getattr(found, field.name))]
            }
            for found in self.methods
        ]
        return {**asdict(self), "methods": methods, "reliability": self.reliability.as_dict()}

    def verdict(self) -> str:
        """Return, in a sentence, which method to trust, and how far."""
        found = next(method for method in self.methods if method.method == self.recommended)
        if found.better is None:
            return f"recommended: {self.recommended}; no prediction has a probability of {CONFIDENT} or more"
        share, low, high = (100 * part for part in (found.better.value, found.better.low, found.better.high))
        return (
            f"recommended: {self.recommended}, which beats random deletion at p < 0.05 on {share:.0f} % ({low:.0f} to "
            f"{high:.0f} %) of the {self.confident} predictions whose probability is {CONFIDENT} or more"
        )


@dataclass
class _Explained:
    """One text, and what each method says of it."""

    example: LabelledText
    prediction: Prediction
    probability: float
    values: dict[Method, np.ndarray]
    tests: dict[Method, Faithfulness]
    seconds: dict[Method, float]


def survey(
    loaded: LoadedModel,
    data: str,
    *,
    limit: int | None = 50,
    by: Unit = "word",
    steps: int = 50,
    seed: int = 0,
) -> Survey:
    """Explain a classifier's predictions for `limit` texts of `data`, drawn from `seed`, by each method that applies.

    Raises
    ------
    InputError: the model is no classifier of texts with one label each, the data cannot be used, or no text of it.
    """
    model, task = _classifier(loaded)
    examples = draw(_read(loaded, task, data), limit, seed)
    done: list[_Explained] = []
    with frozen(model):
        for example in track(examples, "explaining", len(examples)):
            try:
                prediction = predict(loaded, example.text, by=by)
            except InputError:
                continue  # too long to be read at once
            if len(prediction.pieces) > 1:
                done.append(_explained(example, prediction, steps, seed))
        if not done:
            raise InputError("has no text that can be explained", where=data, fix="Pass texts of two words or more.")
        answers = TextClassifier.of(loaded).predict([found.example for found in done])
    return _summary(loaded, data, by, task, done, answers, len(examples) - len(done))


def _classifier(loaded: LoadedModel) -> tuple[SequenceClassifier, TextClassification]:
    provenance = loaded.record["provenance"]
    task: Task[Any, Any] | None = tasks.get(provenance["task"]) if provenance.get("task") in set(tasks) else None
    if not isinstance(loaded.model, SequenceClassifier) or not isinstance(task, TextClassification):
        raise InputError(
            "holds no classifier of texts with one label each that was fine-tuned here",
            where="MODEL",
            fix="Explain single texts, or pass another model with --data.",
        )
    return loaded.model, task


def _read(loaded: LoadedModel, task: TextClassification, data: str) -> list[LabelledText]:
    tuned = TunedOn.from_run(loaded.record["provenance"]["config"], where=loaded.source)
    return read_examples(task, data, fields=tuned.fields, encoding=tuned.encoding, html=tuned.html)


def _explained(example: LabelledText, prediction: Prediction, steps: int, seed: int) -> _Explained:
    deletion = Deletion(prediction, seed)
    found = _Explained(example, prediction, deletion.whole, {}, {}, {})
    for method in applicable(prediction):
        start = time.perf_counter()
        found.values[method] = attribute(prediction, method, steps=steps, seed=seed).values
        found.seconds[method] = time.perf_counter() - start
        found.tests[method] = deletion.judge(found.values[method])
    return found


def _summary(
    loaded: LoadedModel,
    data: str,
    by: Unit,
    task: TextClassification,
    done: list[_Explained],
    answers: list[ClassPrediction],
    left_out: int,
) -> Survey:
    labels = answers[0].labels
    truth = task.label_ids([found.example for found in done], labels)
    methods = tuple(_method(name, done) for name in METHODS if name in done[0].values)
    best = max(methods, key=lambda found: found.comprehensiveness.value - found.sufficiency.value).method
    chance = [next(iter(found.tests.values())).random for found in done]
    wrong = [index for index, answer in enumerate(answers) if labels.index(answer.label) != truth[index]]
    wrong.sort(key=lambda index: -done[index].probability)
    cells = confusion_cells(truth, answers).sum(0).reshape(len(labels), len(labels)).astype(int)
    return Survey(
        str(loaded.source),
        data,
        by,
        tuple(labels),
        len(done),
        left_out,
        sum(found.probability >= CONFIDENT for found in done),
        methods,
        Figures(*(float(np.mean([getattr(one, field.name) for one in chance])) for field in fields(Figures))),
        best,
        _words(done, best, labels),
        tuple(tuple(row) for row in cells.tolist()),
        tuple(_confusion(done[index], labels[truth[index]], best) for index in wrong),
        reliability(truth, answers),
    )


def _method(name: Method, done: Sequence[_Explained]) -> MethodFigures:
    figures = [found.tests[name].figures for found in done]
    better = [found.tests[name].better for found in done if found.probability >= CONFIDENT]
    alike = [
        value
        for found in done
        for other in found.values
        if other != name and np.isfinite(value := rank_correlation(found.values[name], found.values[other]))
    ]
    return MethodFigures(
        name,
        _mean([one.comprehensiveness for one in figures]),
        _mean([one.sufficiency for one in figures]),
        _mean([one.deletion for one in figures]),
        _mean([one.insertion for one in figures]),
        _mean(better) if better else None,
        _mean(alike) if alike else None,
        float(np.mean([found.seconds[name] for found in done])),
    )


def _mean(values: Sequence[float]) -> Estimate:
    return estimate(ratio, np.array([(value, 1.0) for value in values], dtype=np.float64))


def _words(
    done: Sequence[_Explained], method: Method, labels: Sequence[str]
) -> dict[str, tuple[tuple[str, float, int], ...]]:
    """Return the words that add most to predictions of each label; what stands in one text only counts by half."""
    found: dict[str, dict[str, list[float]]] = {label: defaultdict(list) for label in labels}
    for one in done:
        for piece, value in zip(one.prediction.pieces, one.values[method], strict=True):
            if word := piece.text.strip().casefold():
                found[one.prediction.target][word].append(float(value))
    ranked = {}
    for label, words in found.items():
        rows = [(word, float(np.mean(values)), len(values)) for word, values in words.items()]
        rows.sort(key=lambda row: -row[1] * row[2] / (1 + row[2]))
        ranked[label] = tuple(row for row in rows[:WORDS] if row[1] > 0)
    return ranked


def _confusion(found: _Explained, label: str, method: Method) -> Confusion:
    pieces = zip(found.prediction.pieces, found.values[method].tolist(), strict=True)
    return Confusion(
        found.example.text,
        label,
        found.prediction.target,
        found.probability,
        tuple((piece.text, value) for piece, value in pieces),
    )
