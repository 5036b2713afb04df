"""Judge a classifier on labelled texts, beside its baselines, and write down what was found.

`evaluate_classifier` takes anything that has label names and gives probabilities, so the model, the baselines and
whatever a plug-in brings are judged by the same lines of code on the same examples.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel

from lucidlm.core.devices import describe_machine
from lucidlm.core.errors import InputError, LucidError
from lucidlm.core.io import atomic_path, write_text
from lucidlm.evaluate.baselines import BASELINES
from lucidlm.evaluate.metrics import (
    METRICS,
    Estimate,
    confusion_matrix,
    estimate_mean,
    estimate_metric,
    expected_calibration_error,
)
from lucidlm.tasks.classification import LabelledText, TextClassification

EVALUATION = "eval.json"
PREDICTIONS = "predictions.jsonl"


class Classifier(Protocol):
    """What can be judged: it knows its labels by name and gives each text a probability for each of them."""

    @property
    def labels(self) -> Sequence[str]:
        """The label names, in the order of the probabilities."""
        ...

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Return the probabilities of the labels, float (n, k), each row summing to 1."""
        ...


class Score(BaseModel):
    """How one classifier did: its metrics with intervals, and how long it took.

    Parameters
    ----------
    advantage: share of examples the model under test gets right beyond this one (paired bootstrap); None for itself.
    seconds: time to fit, for a baseline, and to predict all examples.
    """

    name: str
    metrics: dict[str, Estimate]
    calibration_error: float
    advantage: Estimate | None = None
    seconds: float


class Evaluation(BaseModel):
    """What eval.json holds.

    Parameters
    ----------
    data: the source as it was named; `data_sha256` is that of the texts and labels themselves, in order.
    confusion: counts, row i being the examples whose label is `labels[i]`, column j those predicted as `labels[j]`.
    """

    task: str
    data: str
    data_sha256: str
    examples: int
    labels: list[str]
    model: Score
    confusion: list[list[int]]
    baselines: list[Score]
    machine: dict[str, Any]


@dataclass(frozen=True)
class Prediction:
    """One line of predictions.jsonl."""

    text: str
    label: str
    predicted: str
    probabilities: dict[str, float]
    where: str


def evaluate_classifier(
    classifier: Classifier,
    examples: Sequence[LabelledText],
    task: TextClassification,
    *,
    name: str,
    data: str,
    training: Sequence[LabelledText] = (),
    seed: int = 0,
) -> tuple[Evaluation, list[Prediction]]:
    """Judge `classifier` on `examples`, beside baselines fitted on `training`.

    Parameters
    ----------
    name: what the model is called in the report.
    data: the source the examples were read from, as the user named it.
    training: what the classifier was trained on; without it there are no baselines.
    seed: of the bootstrap.

    Raises
    ------
    InputError: there are no examples, or a label is not one the classifier knows.
    LucidError: the classifier's probabilities are not finite.
    """
    if not examples:
        raise InputError("there are no examples to evaluate on", where=data, fix="Pass data that has some.")
    labels, texts = list(classifier.labels), [example.text for example in examples]
    truth = task.label_ids(examples, labels)
    start = time.perf_counter()
    probabilities = _probabilities(classifier, texts)
    model = _score(name, probabilities, truth, time.perf_counter() - start, seed)
    predicted = probabilities.argmax(1)

    baselines = []
    for baseline in BASELINES if training else ():
        start = time.perf_counter()
        rival = baseline(labels).fit([example.text for example in training], task.label_ids(training, labels))
        rivals = rival.predict_proba(texts)
        score = _score(rival.name, rivals, truth, time.perf_counter() - start, seed)
        better = (predicted == truth).astype(int) - (rivals.argmax(1) == truth)
        baselines.append(score.model_copy(update={"advantage": estimate_mean(better, seed=seed)}))

    evaluation = Evaluation(
        task=task.name,
        data=data,
        data_sha256=_digest(examples),
        examples=len(examples),
        labels=labels,
        model=model,
        confusion=confusion_matrix(truth, predicted, len(labels)).tolist(),
        baselines=baselines,
        machine=describe_machine().as_dict(),
    )
    predictions = [
        Prediction(
            text=example.text,
            label=labels[truth[index]],
            predicted=labels[predicted[index]],
            probabilities=dict(zip(labels, probabilities[index].round(6).tolist(), strict=True)),
            where=example.where,
        )
        for index, example in enumerate(examples)
    ]
    return evaluation, predictions


def _probabilities(classifier: Classifier, texts: Sequence[str]) -> np.ndarray:
    probabilities = np.asarray(classifier.predict_proba(texts), dtype=np.float64)
    if probabilities.shape != (len(texts), len(classifier.labels)):
        raise ValueError(f"probabilities have the shape {probabilities.shape}, not (texts, labels)")
    if not np.isfinite(probabilities).all():
        raise LucidError(
            "the model gives probabilities that are not finite", fix="Its weights are damaged: train again."
        )
    return probabilities


def _score(name: str, probabilities: np.ndarray, truth: np.ndarray, seconds: float, seed: int) -> Score:
    matrix = confusion_matrix(truth, probabilities.argmax(1), probabilities.shape[1])
    return Score(
        name=name,
        metrics={metric: estimate_metric(function, matrix, seed=seed) for metric, function in METRICS.items()},
        calibration_error=expected_calibration_error(probabilities, truth),
        seconds=seconds,
    )


def _digest(examples: Sequence[LabelledText]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps([example.text, example.label], ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def write_evaluation(evaluation: Evaluation, predictions: Sequence[Prediction], directory: str | Path) -> None:
    """Write predictions.jsonl and then eval.json into `directory`, each whole or not at all.

    Raises
    ------
    LucidError: the disk is full.
    """
    directory = Path(directory)
    with atomic_path(directory / PREDICTIONS) as path, path.open("w", encoding="utf-8") as file:
        for prediction in predictions:
            file.write(json.dumps(vars(prediction), ensure_ascii=False) + "\n")
    write_text(directory / EVALUATION, evaluation.model_dump_json(indent=2) + "\n")


def read_evaluation(path: str | Path) -> Evaluation:
    """Read an eval.json.

    Raises
    ------
    InputError: it is missing, damaged, or another version's.
    """
    try:
        return Evaluation.model_validate_json(Path(path).read_bytes())
    except FileNotFoundError:
        raise InputError("file not found", where=path) from None
    except ValueError as error:
        raise InputError(f"is not an evaluation ({error})", where=path, fix="Run `lucidlm evaluate` again.") from None
