"""Pairs of sentences: whether one follows from the other, whether they say the same, how similar they are.

`entailment` and `paraphrase` are classification of two texts that are read together; `similarity` gives a number, on the
scale that the data have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lucidlm.baselines.classifiers import MajorityClass
from lucidlm.baselines.text_pairs import MeanScore, OverlapClassifier, OverlapRegression
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.data.examples.records import ClassPrediction, LabelledPair, NumberPrediction, Row, ScoredPair, TwoTexts
from lucidlm.metrics.label_metrics import positive_f1
from lucidlm.metrics.similarity_metrics import similarity_metrics
from lucidlm.metrics.statistics import Metric
from lucidlm.predict.pair_classifier import PairClassifier, PairScorer
from lucidlm.tasks.base.task import Baseline, Predictor, Task, tasks
from lucidlm.tasks.text_classification import TextClassification


@dataclass(frozen=True)
class PairClassification(TextClassification):
    """One label for two texts.

    Parameters
    ----------
    first_field, second_field: what the rows call the texts.
    positive: the label whose F1 is a metric too, in data that have it.
    """

    first_field: str = "sentence1"
    second_field: str = "sentence2"
    positive: str | None = None

    @property
    def fields(self) -> tuple[str, ...]:  # type: ignore[override]
        """The fields of a row, which the task chooses."""
        return (self.first_field, self.second_field, "label")

    def read(self, row: Row) -> LabelledPair:
        """Turn a row with two texts and a label, a string or a number, into an example."""
        first, second = row.cleaned(self.first_field), row.cleaned(self.second_field)
        return LabelledPair(first, row.label("label"), row.where, second)

    def key(self, example: LabelledPair) -> str:
        """Return both texts: a pair has one label, whatever other pairs its texts are in."""
        return _both(example)

    def texts(self, example: LabelledPair) -> tuple[str, ...]:
        """Return both texts."""
        return (example.text, example.other)

    def metrics(self, examples: Sequence[LabelledPair]) -> list[Metric]:
        """Return those of text classification, and the F1 of the positive label where the examples have it."""
        found, names = super().metrics(examples), self.names(example.label for example in examples).values()
        if self.positive is not None and self.positive in names:
            found.insert(1, positive_f1(self.label_ids, self.positive))
        return found

    def baselines(self) -> list[Baseline[LabelledPair, ClassPrediction]]:
        """Return the commonest label, and a linear model over what the texts have in common."""
        return [MajorityClass(), OverlapClassifier()]

    def predictor(self, loaded: LoadedModel) -> Predictor[LabelledPair, ClassPrediction]:
        """Return a classifier of pairs."""
        return PairClassifier.of(loaded)

    def show(self, example: LabelledPair, prediction: ClassPrediction) -> dict[str, Any]:
        """Return both texts, their label, the one predicted and all probabilities."""
        shown = super().show(example, prediction)
        del shown["text"]
        return {self.first_field: example.text, self.second_field: example.other, **shown}


@dataclass(frozen=True)
class Similarity(Task[ScoredPair, NumberPrediction]):
    """A number for two texts."""

    answer: ClassVar[type] = NumberPrediction
    fields: ClassVar[tuple[str, ...]] = ("sentence1", "sentence2", "score")

    def read(self, row: Row) -> ScoredPair:
        """Turn a row with two texts and a number into an example."""
        return ScoredPair(row.cleaned("sentence1"), row.cleaned("sentence2"), _number(row, "score"), row.where)

    def key(self, example: ScoredPair) -> str:
        """Return both texts."""
        return _both(example)

    def target(self, example: ScoredPair) -> float:
        """Return the number."""
        return example.score

    def texts(self, example: ScoredPair) -> tuple[str, ...]:
        """Return both texts."""
        return (example.text, example.other)

    def metrics(self, examples: Sequence[ScoredPair]) -> list[Metric]:
        """Return Pearson's and Spearman's correlation."""
        return similarity_metrics()

    def baselines(self) -> list[Baseline[ScoredPair, NumberPrediction]]:
        """Return the mean, and a linear model over what the texts have in common."""
        return [MeanScore(), OverlapRegression()]

    def predictor(self, loaded: LoadedModel) -> Predictor[ScoredPair, NumberPrediction]:
        """Return a regressor of pairs."""
        return PairScorer.of(loaded)

    def show(self, example: ScoredPair, prediction: NumberPrediction) -> dict[str, Any]:
        """Return both texts, their number and the one predicted."""
        texts = {"sentence1": example.text, "sentence2": example.other}
        return {**texts, "similarity": example.score, "predicted": round(prediction.value, 4)}


def _both(example: TwoTexts) -> str:
    return f"{example.text}\n{example.other}"


def _number(row: Row, name: str) -> float:
    """Return the field `name`, a number that is finite; tables have it as text.

    Raises
    ------
    InputError: it is missing, or no such number.
    """
    value, called = row.value(name), row.names.get(name, name)
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f'field "{called}" holds {value!r}, not a number', where=row.where, fix="Write 3.5, say.")
    return number


ENTAILMENT = tasks.register("entailment")(
    PairClassification(
        name="entailment",
        description="whether a hypothesis follows from a premise, contradicts it, or neither (or the labels its data has)",
        first_field="premise",
        second_field="hypothesis",
    )
)

PARAPHRASE = tasks.register("paraphrase")(
    PairClassification(
        name="paraphrase",
        description="whether two sentences say the same",
        synonyms={
            "0": "different",
            "not_equivalent": "different",
            "not_duplicate": "different",
            "1": "paraphrase",
            "equivalent": "paraphrase",
            "duplicate": "paraphrase",
        },
        positive="paraphrase",
    )
)

SIMILARITY = tasks.register("similarity")(
    Similarity(name="similarity", description="how similar two sentences are, as a number on the scale of the data")
)
