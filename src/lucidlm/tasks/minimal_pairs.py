"""Minimal pairs: does a language model prefer a grammatical sentence to one that differs only in the error?

That measures grammar without any tuning (BLiMP: Warstadt et al. 2020, arXiv:1912.00582). A coin is right half of the
time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lucidlm.baselines.sentence_pairs import ShorterSentence
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.data.examples.records import MinimalPair, Preference, Row
from lucidlm.inference.scorer import Scorer
from lucidlm.metrics.statistics import Metric
from lucidlm.tasks.base.task import Baseline, Predictor, Task, tasks
from lucidlm.tokenize.tokenizer import Tokenizer


class Sampler:
    """A language model that says how likely it finds sentences, each as the beginning of a text."""

    def __init__(self, scorer: Scorer, tokenizer: Tokenizer) -> None:
        self.scorer, self.tokenizer = scorer, tokenizer

    def predict(self, examples: Sequence[MinimalPair], label: str | None = None) -> list[Preference]:
        """Return the log-probabilities of each pair; shows progress if given a `label` for it."""
        sentences = [sentence for example in examples for sentence in (example.good, example.bad)]
        found = self.scorer.score_texts(self.tokenizer.encode_batch(sentences), self.tokenizer.begin_id, label)
        return [Preference(good, bad) for good, bad in zip(found[::2], found[1::2], strict=True)]


@dataclass(frozen=True)
class MinimalPairs(Task[MinimalPair, Preference]):
    """Pairs of sentences, one right and one wrong."""

    answer: ClassVar[type] = Preference
    tunable: ClassVar[bool] = False
    fields: ClassVar[tuple[str, ...]] = ("good", "bad", "phenomenon")

    def read(self, row: Row) -> MinimalPair:
        """Turn a row with two sentences and, if it says so, what tells them apart, into an example."""
        good, bad = row.text("good"), row.text("bad")
        if good == bad:
            raise InputError("the two sentences are the same", where=row.where)
        return MinimalPair(good, bad, row.text("phenomenon") if row.has("phenomenon") else "", row.where)

    def key(self, example: MinimalPair) -> str:
        """Return both sentences."""
        return f"{example.good}\n{example.bad}"

    def texts(self, example: MinimalPair) -> tuple[str, ...]:
        """Return both sentences."""
        return example.good, example.bad

    def metrics(self, examples: Sequence[MinimalPair]) -> list[Metric]:
        """Return the share of pairs whose right sentence is the likelier one: of all, and of each phenomenon."""
        phenomena = sorted({example.phenomenon for example in examples} - {""})
        return [share_right(), *(share_right(phenomenon) for phenomenon in phenomena if len(phenomena) > 1)]

    def baselines(self) -> list[Baseline[MinimalPair, Preference]]:
        """Return the choice of the shorter sentence."""
        return [ShorterSentence()]

    def predictor(self, loaded: LoadedModel) -> Predictor[MinimalPair, Preference]:
        """Return what scores with a causal language model."""
        model, tokenizer = loaded.causal_lm()
        return Sampler(Scorer(model), tokenizer)

    def show(self, example: MinimalPair, prediction: Preference) -> dict[str, Any]:
        """Return the sentences, what tells them apart, and how much likelier the right one is, in nats."""
        margin = round(prediction.good - prediction.bad, 4)
        return {"good": example.good, "bad": example.bad, "phenomenon": example.phenomenon, "margin": margin}


def share_right(phenomenon: str | None = None) -> Metric:
    """Return the share of pairs, all or those of one phenomenon, whose right sentence is likelier; equal is wrong."""

    def statistics(examples: Sequence[MinimalPair], predictions: Sequence[Preference]) -> np.ndarray:
        counted = np.array([phenomenon in (None, example.phenomenon) for example in examples], dtype=np.float64)
        right = np.array([prediction.good > prediction.bad for prediction in predictions])
        return np.stack([right * counted, counted], axis=1)

    return Metric("accuracy" if phenomenon is None else f"accuracy: {phenomenon}", statistics)


MINIMAL_PAIRS = tasks.register("minimal-pairs")(
    MinimalPairs(
        name="minimal-pairs", description="whether right sentences are likelier than wrong ones, without tuning"
    )
)
