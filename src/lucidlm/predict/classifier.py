"""Classification of texts: texts in, probabilities of named labels out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar, overload

import numpy as np
import torch

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.arguments import require_texts
from lucidlm.core.errors import InputError
from lucidlm.core.progress import track
from lucidlm.data.examples.records import ClassPrediction, LabelledText, MultiLabelText
from lucidlm.model.config import ProblemType
from lucidlm.model.heads import SequenceClassifier
from lucidlm.predict.batching import bucket_by_length, pad, tokens_per_batch
from lucidlm.predict.text_model import TextModel
from lucidlm.tokenize.embedding_rows import padding, refuse_beyond
from lucidlm.tokenize.tokenizer import Tokenizer

A = TypeVar("A")

OPENED_BY: dict[tuple[ProblemType, bool], str] = {
    ("single_label_classification", False): "TextClassifier",
    ("single_label_classification", True): "PairClassifier",
    ("multi_label_classification", False): "MultiLabelClassifier",
    ("regression", True): "PairScorer",
}
"""The class for each kind of classifier, by what its logits mean and whether it reads pairs of texts."""


class BaseClassifier(TextModel[SequenceClassifier], ABC, Generic[A]):
    """What all classifiers share; a subclass says what they read and what the logits mean.

    Parameters
    ----------
    source: a model that fine-tuning left, or another source of a classifier.
    device: auto, cpu, cuda, cuda:1, mps.

    Raises
    ------
    InputError: there is no such model, or it is no classifier of this kind.
    """

    problem_type: ClassVar[ProblemType]
    pairs: ClassVar[bool] = False
    """Whether it reads two texts together."""

    @abstractmethod
    def activate(self, logits: np.ndarray) -> np.ndarray:
        """Return the probabilities of logits, or what else they stand for, both (texts, labels) float64."""

    @abstractmethod
    def answer(self, activated: list[float]) -> A:
        """Return the answer to a text, given what is `activated` for it, a number for each label."""

    @abstractmethod
    def predict(self, examples: Sequence[Any], label: str | None = None) -> list[A]:
        """Return the answer to each example; shows progress if given a `label` for it."""

    @classmethod
    def from_model(cls, model: SequenceClassifier, tokenizer: Tokenizer, max_length: int) -> Self:
        """Use a model in memory, such as one that is being trained: the current weights answer.

        Raises
        ------
        InputError: `max_length` is more than the model's context, or leaves no room for a text.
        """
        made = cls.__new__(cls)
        made._set(model, tokenizer, max_length)
        return made

    def _open(self, loaded: LoadedModel) -> None:
        if not isinstance(loaded.model, SequenceClassifier):
            raise InputError(
                f"holds a {loaded.record['kind']} model, not a classifier",
                where=loaded.source,
                fix="Fine-tune it first: lucidlm finetune TASK --model … --data … --out ….",
            )
        provenance = loaded.record["provenance"]
        # What others tuned does not say whether it reads pairs.
        found = loaded.model.problem_type, provenance.get("pairs", self.pairs and "task" not in provenance)
        if found != (self.problem_type, self.pairs):
            kinds = [
                f"{problem_type.replace('_', ' ')} of {'pairs' if pairs else 'single texts'}"
                for problem_type, pairs in (found, (self.problem_type, self.pairs))
            ]
            fix = f"Open it with {OPENED_BY[found]}." if found in OPENED_BY else "Choose another model."
            raise InputError(f"holds a model for {kinds[0]}, not for {kinds[1]}", where=loaded.source, fix=fix)
        length = provenance.get("config", {}).get("max_length") or loaded.model.config.context_length
        # Those tuned here read an end of text, those tuned elsewhere what their own tokenizer puts there.
        tokenizer = loaded.require_tokenizer()
        self._set(loaded.model, tokenizer.with_end() if "task" in provenance else tokenizer, length)

    def _set(self, model: SequenceClassifier, tokenizer: Tokenizer, max_length: int) -> None:
        if max_length > model.config.context_length:
            raise InputError(
                f"texts of {max_length:,} tokens are longer than the model's context of "
                f"{model.config.context_length:,}",
                where="max_length",
                fix=f"Pass at most {model.config.context_length}.",
            )
        self.model, self.tokenizer, self.max_length = model, tokenizer, max_length
        if self.max_tokens < 1:
            raise InputError(f"{max_length} tokens have no room for a text", where="max_length", fix="Pass 16, say.")

    def __repr__(self) -> str:
        return self._shown(f"labels: {', '.join(self.labels)}")

    @property
    def labels(self) -> list[str]:
        """The names of the classes, in the order of the probabilities' columns."""
        return self.model.labels

    @property
    @abstractmethod
    def max_tokens(self) -> int:
        """How many tokens are read at once, beside those that the tokenizer puts around them."""


class BaseTextClassifier(BaseClassifier[A]):
    """What classifiers of single texts share.

    A text longer than `max_length` tokens is read in windows of that length, all of it, and the windows vote: their
    logits are averaged, each weighing as much as it has tokens.
    """

    @overload
    def __call__(self, texts: str) -> A: ...

    @overload
    def __call__(self, texts: Sequence[str]) -> list[A]: ...

    def __call__(self, texts: str | Sequence[str]) -> A | list[A]:
        """Return the label of a text, or its labels, and the probabilities of all labels, or those of each of several texts.

        Raises
        ------
        InputError: what is passed is no text and no list of them, or holds a token that the model has no row for.
        """
        if isinstance(texts, str):
            return self([texts])[0]
        return self._predictions(require_texts(texts, "texts"))

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return each text's token ids (int32), whole.

        Raises
        ------
        InputError: one holds a token that the model has no row for.
        """
        encoded = self.tokenizer.encode_batch(texts)
        for number, ids in enumerate(encoded, 1):
            where = f"text {number:,} of {len(texts):,}"
            refuse_beyond(self.tokenizer.whole(ids), self.model.config.vocab_size, self.tokenizer, where)
        return [np.asarray(ids, dtype=np.int32) for ids in encoded]

    @property
    def max_tokens(self) -> int:
        """How many tokens of a text a window holds, beside those that the tokenizer puts around it."""
        return self.max_length - len(self.tokenizer.prefix) - len(self.tokenizer.suffix)

    def window(self, ids: np.ndarray) -> np.ndarray:
        """Return a window as the model reads it: between what begins and what ends a text, where its class may be read."""
        return np.array(self.tokenizer.whole(ids), dtype=np.int32)

    def predict(self, examples: Sequence[LabelledText | MultiLabelText], label: str | None = None) -> list[A]:
        """Classify the text of each example; shows progress if given a `label` for it."""
        return self._predictions([example.text for example in examples], label)

    def _predictions(self, texts: Sequence[str], label: str | None = None) -> list[A]:
        return self.answers(self._logits(texts, label))

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Return the probabilities (texts, labels), float64, of each label for each text."""
        return self.activate(self._logits(texts, label="classifying"))

    def answers(self, logits: np.ndarray) -> list[A]:
        """Return what logits (texts, labels) say of each text."""
        return [self.answer(row) for row in self.activate(logits).tolist()]

    def _logits(self, texts: Sequence[str], label: str | None) -> np.ndarray:
        """Return the logits (texts, labels) that answers are read off, float64."""
        return self.deep_logits(texts, label)

    def deep_logits(self, texts: Sequence[str], label: str | None = None) -> np.ndarray:
        """Return the Transformer's logits (texts, labels), float64; shows progress if given a `label` for it."""
        windows, owners = [], []
        for owner, ids in enumerate(self.encode(texts)):
            for part in np.array_split(ids, max(1, math.ceil(len(ids) / self.max_tokens))):
                windows.append(self.window(part))
                owners.append(owner)
        batches: Iterable[np.ndarray] = bucket_by_length(windows, tokens_per_batch(self.model, self.max_length))
        if label is not None:
            batches = track(batches, label, unit="batches")
        was_training = self.model.training
        self.model.eval()
        totals, weights = np.zeros((len(texts), len(self.labels))), np.zeros((len(texts), 1))
        with torch.inference_mode():
            for rows in batches:
                sizes = np.array([[len(windows[row])] for row in rows], dtype=np.float64)
                of = np.array([owners[row] for row in rows])
                np.add.at(totals, of, sizes * self._read([windows[row] for row in rows]))
                np.add.at(weights, of, sizes)
        self.model.train(was_training)
        return totals / weights

    def long_inputs(self, examples: Sequence[LabelledText | MultiLabelText]) -> dict[str, int]:
        """Return how many texts are longer than a window, by what is done with them."""
        encoded = self.encode([example.text for example in examples])
        return {"inputs read in windows": sum(len(ids) > self.max_tokens for ids in encoded)}

    def _read(self, windows: Sequence[np.ndarray]) -> np.ndarray:
        tokens, lengths = pad(windows, padding(self.tokenizer, self.model.config.vocab_size))
        device = self.model.model.embed_tokens.weight.device
        return self.model(tokens.to(device), lengths.to(device)).double().cpu().numpy()


class TextClassifier(BaseTextClassifier[ClassPrediction]):
    """A classifier that gives a text one of its labels.

    >>> judge = TextClassifier("judge")
    >>> judge("good film").label
    'positive'

    Where counted n-grams stand beside the Transformer, their logits are added to its own.
    """

    problem_type = "single_label_classification"

    def branches(
        self, examples: Sequence[LabelledText], answers: Sequence[ClassPrediction]
    ) -> dict[str, list[ClassPrediction]]:
        """Return what each branch by itself predicts, by its name; nothing where the Transformer has none beside it.

        The n-grams are counted again; what the Transformer says is the rest of the `answers` that both gave.
        """
        if self.model.wide is None:
            return {}
        tiny = np.finfo(np.float64).tiny
        both = np.log(np.maximum([answer.probabilities for answer in answers], tiny))  # up to a constant of each text
        wide = self.model.wide.ngrams.logits([example.text for example in examples])
        logits = {"Transformer alone": self.model.wide.deep_part(both, wide), "n-grams alone": wide}
        return {name: self.answers(found) for name, found in logits.items()}

    def _logits(self, texts: Sequence[str], label: str | None) -> np.ndarray:
        deep = self.deep_logits(texts, label)
        return deep if self.model.wide is None else self.model.wide.add(deep, texts)

    def activate(self, logits: np.ndarray) -> np.ndarray:
        return torch.from_numpy(logits).softmax(-1).numpy()

    def answer(self, activated: list[float]) -> ClassPrediction:
        return ClassPrediction(tuple(self.labels), tuple(activated))
