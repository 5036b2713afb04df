"""Multi-label classification: texts in, all labels that hold for each out, none or several.

A row has its labels in a list, or in a string that commas or semicolons divide, as tables have to: `sport; weather`. In
a table a label that has a comma itself is written in a JSON list: `["law, crime"]`. An empty list or string says that no
label holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lucidlm.baselines.multi_label_classifiers import CommonestLabelSet, TfidfPerLabel
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.data.examples.records import MultiLabelPrediction, MultiLabelText, Row
from lucidlm.data.formats.rows import label_text, repeated
from lucidlm.metrics.multi_label_metrics import indicators, multi_label_metrics
from lucidlm.metrics.statistics import Metric
from lucidlm.predict.multi_label_classifier import MultiLabelClassifier
from lucidlm.tasks.base.task import Baseline, Predictor, Task, tasks


@dataclass(frozen=True)
class MultiLabelClassification(Task[MultiLabelText, MultiLabelPrediction]):
    """Any number of labels for each text."""

    answer: ClassVar[type] = MultiLabelPrediction
    fields: ClassVar[tuple[str, ...]] = ("text", "labels")

    def read(self, row: Row) -> MultiLabelText:
        """Turn a row with a text and its labels into an example."""
        return MultiLabelText(row.cleaned("text"), _labels(row), row.where)

    def key(self, example: MultiLabelText) -> str:
        """Return the text: one text has one set of labels."""
        return example.text

    def target(self, example: MultiLabelText) -> frozenset[str]:
        """Return the labels, whatever their order."""
        return frozenset(example.labels)

    def texts(self, example: MultiLabelText) -> tuple[str, ...]:
        """Return the text."""
        return (example.text,)

    def metrics(self, examples: Sequence[MultiLabelText]) -> list[Metric]:
        """Return micro-F1, macro-F1 and the share of texts with exactly the right labels."""
        return multi_label_metrics()

    def baselines(self) -> list[Baseline[MultiLabelText, MultiLabelPrediction]]:
        """Return the commonest set of labels, and a linear model over counted n-grams for each label."""
        return [CommonestLabelSet(), TfidfPerLabel()]

    def predictor(self, loaded: LoadedModel) -> Predictor[MultiLabelText, MultiLabelPrediction]:
        """Return a multi-label classifier."""
        return MultiLabelClassifier.of(loaded)

    def show(self, example: MultiLabelText, prediction: MultiLabelPrediction) -> dict[str, Any]:
        """Return the text, its labels, those chosen and all probabilities."""
        probabilities = dict(zip(prediction.labels, (round(p, 6) for p in prediction.probabilities), strict=True))
        labels, chosen = list(example.labels), list(prediction.chosen)
        return {"text": example.text, "labels": labels, "predicted": chosen, "probabilities": probabilities}

    def discover_labels(self, examples: Sequence[MultiLabelText]) -> list[str]:
        """Return the labels of the examples, sorted.

        Raises
        ------
        InputError: none of them has a label.
        """
        if not (found := {label for example in examples for label in example.labels}):
            place = examples[0].where if examples else None
            raise InputError(f"none of {len(examples):,} examples has a label", where=place, fix="Pass some that have.")
        return sorted(found)

    def label_ids(self, examples: Sequence[MultiLabelText], labels: Sequence[str]) -> np.ndarray:
        """Return which of `labels` each example has, bool (n, k).

        Raises
        ------
        InputError: a label is not among them; the message names its file and line.
        """
        known = set(labels)
        for example in examples:
            if unknown := [label for label in example.labels if label not in known]:
                raise InputError(
                    f"the label {unknown[0]!r} is not one the model knows ({', '.join(labels)})",
                    where=example.where,
                    fix="Correct it, or fine-tune on data that has it.",
                )
        return indicators([example.labels for example in examples], labels)


def _labels(row: Row) -> tuple[str, ...]:
    """Return the labels of a row, as the module's docstring says they are written.

    Raises
    ------
    InputError: the field is missing or holds something else, or one label is empty, no label, or there twice.
    """
    value, called = row.value("labels"), row.names.get("labels", "labels")
    if isinstance(value, str):
        value = _divided(value.strip(), called, row.where)
    if not isinstance(value, list):
        what = f'field "{called}" holds a {type(value).__name__}, neither a list of labels nor a string of them'
        raise InputError(what, where=row.where, fix='Write ["a", "b"], and [] where there are none.')
    labels = []
    for label in value:
        if isinstance(label, (dict, list)):
            what = f'field "{called}" holds a {type(label).__name__} among its labels'
            raise InputError(what, where=row.where, fix="A label is a string or a number.")
        if (text := label_text(label)) is None:
            what = f'field "{called}" holds {label!r} among its labels, which stands for a missing value'
            raise InputError(what, where=row.where, fix="Leave it out.")
        labels.append(text)
    if twice := repeated(labels):
        raise InputError(f'field "{called}" holds {twice[0]!r} twice', where=row.where, fix="Leave one out.")
    return tuple(labels)


def _divided(text: str, called: str, where: str) -> Any:
    if not text.startswith("["):
        return re.split("[,;]", text) if text else []
    try:
        return json.loads(text)
    except ValueError:
        fix = 'Write ["a", "b"] or a; b.'
        raise InputError(f'field "{called}" begins as a list and is none in JSON', where=where, fix=fix) from None


MULTI_LABEL = tasks.register("multi-label")(
    MultiLabelClassification(
        name="multi-label", description="which of its data's labels hold for a text: none or several"
    )
)
