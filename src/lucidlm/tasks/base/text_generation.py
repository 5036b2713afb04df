"""Text in, text out, by a causal language model: translation, summarization, answers, replies, continuations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.data.examples.records import Example, GeneratedText, Pair, Row
from lucidlm.inference.sampler import SamplingConfig
from lucidlm.metrics.statistics import Metric
from lucidlm.metrics.text_metrics import translation_metrics
from lucidlm.model.heads import LanguageModel
from lucidlm.predict.sequence_writer import BEAMS, Lengths, SequenceWriter
from lucidlm.tasks.base.task import Baseline, Predictor, Task
from lucidlm.tokenize.prompts import TokenizedExample, tokenize_pairs
from lucidlm.tokenize.tokenizer import Tokenizer

E = TypeVar("E", bound=Example)

UNLIKE = 20
"""Characters that the longer side of a pair has at least, for its length to make one doubt that the two belong together."""

MANY = 0.03
"""The share of doubtful pairs from which on a file may be misaligned."""


@dataclass(frozen=True)
class TextGeneration(Task[E, GeneratedText], Generic[E]):
    """Generates a text for each example.

    Parameters
    ----------
    beams: the width of the beam search; 1 is greedy.
    sampling: sample the answer instead of searching, as long as the reference is.
    """

    beams: int = BEAMS
    sampling: SamplingConfig | None = None

    answer: ClassVar[type] = GeneratedText

    untuned: ClassVar[bool] = False
    """Whether a model that was only pretrained can do it."""

    @abstractmethod
    def tokenize(self, examples: Sequence[E], tokenizer: Tokenizer, max_tokens: int) -> list[TokenizedExample]:
        """Turn examples into prompt and target tokens, `max_tokens` in all.

        Sequences may be longer than that; training then reads windows of them.
        """

    def end(self, tokenizer: Tokenizer) -> int:
        """Return the id that ends an answer."""
        return tokenizer.eos_id

    def settings(self) -> dict[str, Any]:
        """Return the form of the prompt, which the model directory remembers: plain values by the task's field names."""
        return {}

    def prepare_tokenizer(self, tokenizer: Tokenizer) -> Tokenizer:
        """Return the tokenizer that goes with the tuned model.

        Raises
        ------
        InputError: it lacks a token that the task needs.
        """
        return tokenizer

    def doubts(self, examples: Sequence[E]) -> list[str]:
        """Return warnings about the training examples, as sentences."""
        return []

    def writer(
        self, model: LanguageModel, tokenizer: Tokenizer, max_tokens: int, lengths: Lengths, *, bidirectional: bool
    ) -> SequenceWriter:
        """Return a predictor that uses the current weights of `model`."""
        return SequenceWriter(
            model,
            tokenizer,
            partial(self.tokenize, tokenizer=tokenizer, max_tokens=max_tokens),
            max_tokens=max_tokens,
            end=self.end(tokenizer),
            lengths=lengths,
            bidirectional=bidirectional,
            beams=self.beams,
            sampling=self.sampling,
        )

    def predictor(self, loaded: LoadedModel) -> Predictor[E, GeneratedText]:
        """Return what writes with a model that was tuned for a task of this kind, by the prompt that it was tuned with."""
        provenance = loaded.record["provenance"]
        length = loaded.model.config.context_length
        unknown = {"settings": {}, "lengths": {"multiple": 1.0, "longest": length}} if self.untuned else None
        writing = provenance.get("writing", unknown)
        if not isinstance(loaded.model, LanguageModel) or loaded.tokenizer is None or writing is None:
            raise InputError(
                "holds no model that was tuned to write",
                where=loaded.source,
                fix=f"Fine-tune one: lucidlm finetune {self.name} --model {loaded.source} --data … --out ….",
            )
        tuned = provenance["config"] if "writing" in provenance else {}
        bidirectional = tuned.get("attention") == "bidirectional"
        task = replace(self, **writing["settings"])
        lengths = Lengths(**writing["lengths"])
        max_tokens = tuned.get("max_length") or length
        return task.writer(loaded.model, loaded.tokenizer, max_tokens, lengths, bidirectional=bidirectional)


@dataclass(frozen=True)
class SequenceToSequence(TextGeneration[Pair]):
    """A target text for a source text, from rows with both.

    The model reads `before`, the source, `between` and writes the target. By default `between` is the end-of-text token,
    which no text can contain. A source that is longer than its share of the room is read
    from its beginning as far as it fits.

    Parameters
    ----------
    source_field, target_field, references_field: what the rows call the source, the target and the list of
        references; rows may lack the last.
    before, between: texts around the source.
    source_share: how much of the room the source may take, the rest being the answer's.
    metrics: makes the metrics of pairs.
    baselines: makes the baselines.
    longest_ratio: how many times as long as the other one side usually is at most, in characters; None: nobody knows.
    """

    source_field: str = "source"
    target_field: str = "target"
    references_field: str = "references"
    before: str = ""
    between: str = ""
    source_share: float = 0.5
    metrics: Callable[[Sequence[Any]], list[Metric]] = translation_metrics  # pyright: ignore[reportIncompatibleMethodOverride]
    baselines: Callable[[], list[Baseline[Pair, GeneratedText]]] = list  # pyright: ignore[reportIncompatibleMethodOverride]
    longest_ratio: float | None = None

    @property
    def fields(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The fields of a row: those that the task was made with."""
        return (self.source_field, self.target_field, self.references_field)

    def read(self, row: Row) -> Pair:
        """Turn a row with two texts, or one and a list of references, into an example."""
        source = row.text(self.source_field).strip()
        references = self._references(row)
        target = row.text(self.target_field).strip() if row.has(self.target_field) or not references else references[0]
        return Pair(source, target, references or (target,), row.where)

    def _references(self, row: Row) -> tuple[str, ...]:
        if not row.has(self.references_field):
            return ()
        found = row.value(self.references_field)
        if not isinstance(found, list) or not all(isinstance(one, str) and one.strip() for one in found):
            called = row.names.get(self.references_field, self.references_field)
            raise InputError(f'field "{called}" is not a list of texts', where=row.where)
        return tuple(one.strip() for one in found)

    def key(self, example: Pair) -> str:
        """Return the source, so that all its targets are in one split."""
        return example.source

    def target(self, example: Pair) -> tuple[str, tuple[str, ...]]:
        """Return the target and the references."""
        return example.target, example.references

    def together(self, examples: Sequence[Pair]) -> list[Pair]:
        """Return the first pair, with the references of all of them."""
        references = dict.fromkeys(reference for example in examples for reference in example.references)
        return [replace(examples[0], references=tuple(references))]

    def texts(self, example: Pair) -> tuple[str, ...]:
        """Return the source, the target and the references."""
        return (example.source, *dict.fromkeys((example.target, *example.references)))

    def show(self, example: Pair, prediction: GeneratedText) -> dict[str, Any]:
        """Return the source, the target and the text written."""
        return {"source": example.source, "target": example.target, "written": prediction.text}

    def settings(self) -> dict[str, Any]:
        """Return the texts around the source, and its share of the room."""
        return {"before": self.before, "between": self.between, "source_share": self.source_share}

    def tokenize(self, examples: Sequence[Pair], tokenizer: Tokenizer, max_tokens: int) -> list[TokenizedExample]:
        """Return prompt, target and the end of text (see `tokenize_pairs`)."""
        pairs = [(example.source, example.target) for example in examples]
        return tokenize_pairs(pairs, tokenizer, max_tokens, **self.settings())

    def doubts(self, examples: Sequence[Pair]) -> list[str]:
        """Return the question whether the file is misaligned, if many pairs are of very unlike lengths."""
        if self.longest_ratio is None:
            return []
        sizes = np.array([(len(pair.source), len(pair.target)) for pair in examples])
        odd = np.flatnonzero((sizes.max(1) > UNLIKE) & (sizes.max(1) > self.longest_ratio * sizes.min(1)))
        if len(odd) <= MANY * len(examples):
            return []
        share, ratio, first = len(odd) / len(examples), self.longest_ratio, examples[odd[0]].where
        return [
            f"of {share:.0%} of the pairs one side is more than {ratio:g} times as long as the other (first: {first}): "
            "is the file misaligned?"
        ]
