"""Text classification: labelled texts in, label names and numbers out.

Which labels there are is discovered from the training data and saved by name in the model directory; data that is
read later is matched against those names, so the order of a file never decides what a class means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from lucidlm.baselines.classifiers import MajorityClass, TfidfLogisticRegression
from lucidlm.baselines.naive_bayes import NaiveBayesLogisticRegression
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.data.examples.records import ClassPrediction, LabelledText, Row
from lucidlm.metrics.label_metrics import classification_metrics
from lucidlm.metrics.statistics import Metric
from lucidlm.predict.classifier import TextClassifier
from lucidlm.tasks.base.task import Baseline, Predictor, Task, tasks


@dataclass(frozen=True)
class TextClassification(Task[LabelledText, ClassPrediction]):
    """One label for each text.

    Parameters
    ----------
    synonyms: other spellings of the label names. They hold only where all labels of the training data are among them,
        so 0 and 1 become names but 0, 1 and 2 stay what they are.
    """

    synonyms: Mapping[str, str] = field(default_factory=dict)

    answer: ClassVar[type] = ClassPrediction
    fields: ClassVar[tuple[str, ...]] = ("text", "label")

    def read(self, row: Row) -> LabelledText:
        """Turn a row with a text and a label, a string or a number, into an example."""
        return LabelledText(row.cleaned("text"), row.label("label"), row.where)

    def key(self, example: LabelledText) -> str:
        """Return the text: one text has one label."""
        return example.text

    def target(self, example: LabelledText) -> str:
        """Return the label."""
        return example.label

    def texts(self, example: LabelledText) -> tuple[str, ...]:
        """Return the text."""
        return (example.text,)

    def metrics(self, examples: Sequence[LabelledText]) -> list[Metric]:
        """Return accuracy, macro-F1, Matthews' correlation and calibration error."""
        return classification_metrics(self.label_ids)

    def baselines(self) -> list[Baseline[LabelledText, ClassPrediction]]:
        """Return the commonest label, and two linear models over counted n-grams."""
        return [MajorityClass(), NaiveBayesLogisticRegression(), TfidfLogisticRegression()]

    def predictor(self, loaded: LoadedModel) -> Predictor[LabelledText, ClassPrediction]:
        """Return a classifier."""
        return TextClassifier.of(loaded)

    def show(self, example: LabelledText, prediction: ClassPrediction) -> dict[str, Any]:
        """Return the text, its label, the one predicted and all probabilities."""
        probabilities = dict(zip(prediction.labels, (round(p, 6) for p in prediction.probabilities), strict=True))
        label = self.known_as(example.label, prediction.labels)
        return {"text": example.text, "label": label, "predicted": prediction.label, "probabilities": probabilities}

    def names(self, labels: Iterable[str]) -> dict[str, str]:
        """Return what each of `labels` is called: by its name if all of them are names or other spellings of names."""
        found = set(labels)
        known = found <= {*self.synonyms, *self.synonyms.values()}
        return {label: self.synonyms.get(label, label) if known else label for label in found}

    def discover_labels(self, examples: Sequence[LabelledText]) -> list[str]:
        """Return the label names of the training data, sorted.

        Raises
        ------
        InputError: the data has fewer than two labels: there is nothing to tell apart.
        """
        found = set(self.names(example.label for example in examples).values())
        if len(found) < 2:
            what = f"all {len(examples):,} examples have one label, {next(iter(found))!r}" if found else "no examples"
            place = examples[0].where if examples else None
            raise InputError(what, where=place, fix="A classifier learns from examples of two labels or more.")
        return sorted(found)

    def known_as(self, label: str, labels: Sequence[str]) -> str | None:
        """Return the one of `labels` that `label` is or is a spelling of; None if there is none."""
        if label in labels:
            return label
        if f"{label}.0" in labels:  # as earlier versions called whole numbers
            return f"{label}.0"
        name = self.synonyms.get(label)
        return name if name in labels else None

    def label_ids(self, examples: Sequence[LabelledText], labels: Sequence[str]) -> np.ndarray:
        """Return the place of each example's label in `labels`, int64 (n,).

        Raises
        ------
        InputError: a label is not among them; the message names its file and line.
        """
        place = {label: index for index, label in enumerate(labels)}
        ids = np.empty(len(examples), dtype=np.int64)
        for index, example in enumerate(examples):
            if (found := self.known_as(example.label, labels)) is None:
                raise InputError(
                    f"the label {example.label!r} is not one the model knows ({', '.join(labels)})",
                    where=example.where,
                    fix="Correct it, or fine-tune on data that has it.",
                )
            ids[index] = place[found]
        return ids


TEXT_CLASSIFICATION = tasks.register("text-classification")(
    TextClassification(name="text-classification", description="which of its data's labels a text has: topic, kind …")
)
