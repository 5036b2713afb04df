"""The files of an evaluation: `eval.json`, the predictions, and the per-example statistics for comparing models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from lucidlm.core.config import describe
from lucidlm.core.errors import InputError
from lucidlm.core.io import atomic_path, read_json, write_text
from lucidlm.data.examples.records import Example
from lucidlm.evaluate.leakage import Leak
from lucidlm.metrics.statistics import Comparison, Estimate
from lucidlm.tokenize.unknown import Unknown

EVALUATION, PREDICTIONS, STATISTICS = "eval.json", "predictions.jsonl", "statistics.npz"
FORMAT = 2


class Measure(BaseModel):
    """A metric in eval.json; the fields are those of `lucidlm.metrics.statistics.Metric`."""

    name: str
    higher_is_better: bool = True
    percent: bool = False
    signature: str = ""


class Score(BaseModel):
    """The results of one model or baseline.

    Parameters
    ----------
    metrics: the metrics that could be measured: a baseline that gives no probabilities has no perplexity.
    comparison: the evaluated model against this baseline on the first metric; None for the model itself.
    seconds: time to predict all examples, for a baseline including the fit.
    branch: it is a part of the evaluated model judged by itself, listed before the baselines.
    """

    name: str
    metrics: dict[str, Estimate]
    comparison: Comparison | None = None
    seconds: float
    branch: bool = False


class Evaluation(BaseModel):
    """The contents of eval.json.

    Parameters
    ----------
    data: the source as the user named it, and its split; `data_sha256` is the hash of the examples, in order.
    measures: the metrics; models are compared on the first.
    labels, confusion: of a classifier; row i counts the examples with label `labels[i]`, column j those predicted as
        `labels[j]`.
    leakage: how much of the data was in the fine-tuning and pretraining data.
    unknown: characters of the examples' texts without a token in the model's tokenizer; None: not counted.
    counts: inputs longer than the model's context, by how they were handled.
    settings: the configuration, with which the evaluation can be repeated.
    """

    format: Literal[2] = FORMAT
    task: str
    data: str
    data_sha256: str
    examples: int = Field(ge=1)
    measures: list[Measure] = Field(min_length=1)
    model: Score
    baselines: list[Score]
    labels: list[str] | None = None
    confusion: list[list[int]] | None = None
    leakage: list[Leak] = []
    unknown: Unknown | None = None
    counts: dict[str, int] = {}
    machine: dict[str, Any]
    seconds: float
    settings: dict[str, Any] = {}

    @property
    def first(self) -> Measure:
        """The metric that models are compared on."""
        return self.measures[0]

    @property
    def best_baseline(self) -> Score | None:
        """The baseline that is best on that metric, of those the model was compared with."""
        rivals = [score for score in self.baselines if score.comparison is not None and not score.branch]
        pick = max if self.first.higher_is_better else min
        return pick(rivals, key=lambda score: score.metrics[self.first.name].value, default=None)


def write_evaluation(
    evaluation: Evaluation,
    predictions: Sequence[Mapping[str, Any]],
    statistics: Mapping[str, np.ndarray],
    directory: str | Path,
) -> None:
    """Write predictions.jsonl, statistics.npz and, last, eval.json into `directory`, each whole or not at all.

    Raises
    ------
    LucidError: the disk is full.
    """
    directory = Path(directory)
    with atomic_path(directory / PREDICTIONS) as path, path.open("w", encoding="utf-8") as file:
        for prediction in predictions:
            file.write(json.dumps(prediction, ensure_ascii=False) + "\n")
    with atomic_path(directory / STATISTICS) as path, path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **statistics)
    write_text(directory / EVALUATION, evaluation.model_dump_json(indent=2) + "\n")


def read_evaluation(path: str | Path) -> Evaluation:
    """Read an eval.json.

    Raises
    ------
    InputError: it is missing, damaged or of another version.
    """
    fields = read_json(path)
    if fields.get("format") != FORMAT:
        what = f"has format {fields.get('format', 'none')}, this version reads {FORMAT}"
        raise InputError(what, where=path, fix="Run `lucidlm evaluate` again.")
    try:
        return Evaluation.model_validate(fields)
    except ValidationError as error:
        what = f"is not an evaluation ({describe(error)})"
        raise InputError(what, where=path, fix="Run `lucidlm evaluate` again.") from None


def read_statistics(directory: str | Path) -> dict[str, np.ndarray]:
    """Read the sufficient statistics of each example, float64 (n, s), by the metric's name.

    Raises
    ------
    InputError: the file is missing or damaged.
    """
    path = Path(directory) / STATISTICS
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise InputError("file not found", where=path, fix="Run `lucidlm evaluate` again.") from None
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise InputError(f"is damaged ({error})", where=path, fix="Run `lucidlm evaluate` again.") from None


def digest(examples: Sequence[Example]) -> str:
    """Return the SHA-256 of the examples' contents, independent of where they were read."""
    found = hashlib.sha256()
    for example in examples:
        fields = {name: value for name, value in asdict(example).items() if name != "where"}  # pyright: ignore
        found.update(json.dumps(fields, ensure_ascii=False, sort_keys=True).encode() + b"\n")
    return found.hexdigest()
