"""Perplexity: how well a language model predicts texts, without fine-tuning.

Texts are read whole, each from its beginning, in windows that fill the model's context. Perplexities a word and bits a
byte can be compared between tokenizers, perplexities a token within one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.data.examples.records import GeneratedText, Passage, Row
from lucidlm.data.scripts import separates_no_words
from lucidlm.inference.scorer import Scorer
from lucidlm.metrics.statistics import Metric
from lucidlm.metrics.text_metrics import bits_per_byte, perplexity
from lucidlm.tasks.base.task import Baseline, Predictor, Task, tasks
from lucidlm.tokenize.tokenizer import Tokenizer


class PerplexityPredictor:
    """A language model that returns the negative log-likelihood of texts."""

    def __init__(self, scorer: Scorer, tokenizer: Tokenizer) -> None:
        self.scorer, self.tokenizer = scorer, tokenizer

    def predict(self, examples: Sequence[Passage], label: str | None = None) -> list[GeneratedText]:
        """Return each text's negative log-likelihood in nats, and its tokens; shows progress if given a `label` for it."""
        encoded = self.tokenizer.encode_batch([example.text for example in examples])
        found = self.scorer.score_texts(encoded, self.tokenizer.begin_id, label)
        return [GeneratedText("", -logprob, len(ids)) for logprob, ids in zip(found, encoded, strict=True)]


@dataclass(frozen=True)
class Perplexity(Task[Passage, GeneratedText]):
    """Plain texts, evaluated by their negative log-likelihood."""

    answer: ClassVar[type] = GeneratedText
    tunable: ClassVar[bool] = False
    fields: ClassVar[tuple[str, ...]] = ("text",)

    def read(self, row: Row) -> Passage:
        """Turn a row with a text into an example."""
        return Passage(row.text("text"), row.where)

    def key(self, example: Passage) -> str:
        """Return the text."""
        return example.text

    def texts(self, example: Passage) -> tuple[str, ...]:
        """Return the text."""
        return (example.text,)

    def metrics(self, examples: Sequence[Passage]) -> list[Metric]:
        """Return bits a byte, perplexity a token and, where spaces separate words, perplexity a word."""
        found = [bits_per_byte(lambda example: example.text), perplexity()]
        unspaced = separates_no_words([example.text for example in examples])
        return found if unspaced else [*found, word_perplexity()]

    def baselines(self) -> list[Baseline[Passage, GeneratedText]]:
        """Return none: other models are what perplexity is compared with."""
        return []

    def predictor(self, loaded: LoadedModel) -> Predictor[Passage, GeneratedText]:
        """Return what scores with a causal language model."""
        model, tokenizer = loaded.causal_lm()
        return PerplexityPredictor(Scorer(model), tokenizer)

    def show(self, example: Passage, prediction: GeneratedText) -> dict[str, Any]:
        """Return the text's beginning, its cost and its tokens."""
        return {"text": example.text[:200], "nats": round(prediction.nats, 4), "tokens": prediction.tokens}


def word_perplexity() -> Metric:
    """Return the perplexity a word, as words stand between spaces: the figure that WikiText is reported by."""

    def statistics(examples: Sequence[Passage], predictions: Sequence[GeneratedText]) -> np.ndarray:
        pairs = zip(examples, predictions, strict=True)
        return np.array([(p.nats, len(example.text.split())) for example, p in pairs], dtype=np.float64).reshape(-1, 2)

    def value(sums: np.ndarray) -> np.ndarray:
        return np.exp(np.minimum(sums[..., 0] / np.maximum(sums[..., 1], 1), 700))

    return Metric("word_perplexity", statistics, value, higher_is_better=False)


PERPLEXITY = tasks.register("perplexity")(
    Perplexity(name="perplexity", description="how well a language model foresees texts, without tuning")
)
