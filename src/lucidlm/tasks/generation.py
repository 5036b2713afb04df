"""Generation: texts of one's own kind to go on pretraining with, and to be continued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lucidlm.data.examples.records import GeneratedText, Passage, Row
from lucidlm.inference.sampler import SamplingConfig
from lucidlm.metrics.statistics import Metric
from lucidlm.metrics.text_metrics import bits_per_byte, distinct, perplexity, repetition
from lucidlm.tasks.base.task import Baseline, tasks
from lucidlm.tasks.base.text_generation import TextGeneration
from lucidlm.tokenize.prompts import TokenizedExample, join_parts
from lucidlm.tokenize.tokenizer import Tokenizer


@dataclass(frozen=True)
class Continuation(TextGeneration[Passage]):
    """Plain texts. All of a text is learned; asked, the model continues its first half (of what it reads at once)."""

    fields: ClassVar[tuple[str, ...]] = ("text",)
    untuned: ClassVar[bool] = True

    def read(self, row: Row) -> Passage:
        """Turn a row with a text into an example."""
        return Passage(row.text("text").strip(), row.where)

    def key(self, example: Passage) -> str:
        """Return the text."""
        return example.text

    def texts(self, example: Passage) -> tuple[str, ...]:
        """Return the text."""
        return (example.text,)

    def metrics(self, examples: Sequence[Passage]) -> list[Metric]:
        """Return perplexity and bits per byte of the texts, variety and repetition of the continuations."""
        return [perplexity(), bits_per_byte(lambda example: example.text), distinct(2), repetition()]

    def baselines(self) -> list[Baseline[Passage, GeneratedText]]:
        """Return none: the untuned model is what perplexity is compared with."""
        return []

    def show(self, example: Passage, prediction: GeneratedText) -> dict[str, Any]:
        """Return the text and the continuation of its first half."""
        return {"text": example.text, "written": prediction.text}

    def tokenize(self, examples: Sequence[Passage], tokenizer: Tokenizer, max_tokens: int) -> list[TokenizedExample]:
        """Return the texts whole, between what begins and what ends one."""
        begin, end = [tokenizer.begin_id], [tokenizer.eos_id]
        found = []
        for ids in tokenizer.encode_batch([example.text for example in examples]):
            half = min(len(ids), max_tokens) // 2
            found.append(join_parts([(begin, False), (ids[:half], True), ([*ids[half:], *end], True)], prompt=2))
        return found


GENERATION = tasks.register("generation")(
    Continuation(
        name="generation",
        description="more text of the kind that it is shown",
        sampling=SamplingConfig(length=128),
    )
)
