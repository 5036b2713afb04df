"""Models that read two texts together, as cross-encoders do: a label or a number for each pair.

BERT reads `[CLS] first [SEP] second [SEP]`, the second as another segment; other models read what their tokenizer puts
around pairs, and those tuned here, where it puts nothing between two texts, an end of text there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar, overload

import numpy as np
import torch

from lucidlm.core.arguments import require_text, require_texts
from lucidlm.core.errors import InputError
from lucidlm.core.progress import track
from lucidlm.data.examples.records import ClassPrediction, NumberPrediction, TwoTexts
from lucidlm.model.heads import SequenceClassifier
from lucidlm.predict.batching import bucket_by_length, pad, tokens_per_batch
from lucidlm.predict.classifier import BaseClassifier
from lucidlm.tokenize.embedding_rows import padding, refuse_beyond
from lucidlm.tokenize.text_pairs import PairFrame, fitting
from lucidlm.tokenize.tokenizer import Tokenizer

A = TypeVar("A")

Encoded = tuple[np.ndarray, np.ndarray]
"""The ids of two texts, int32, whole."""

Window = tuple[np.ndarray, int]
"""The ids that are read, int32 (T,), and where in them the second text begins."""


class BasePairClassifier(BaseClassifier[A], Generic[A]):
    """What models of pairs share. Of two texts that do not fit together the longer one is cut at its end, at last both."""

    pairs = True

    def _set(self, model: SequenceClassifier, tokenizer: Tokenizer, max_length: int) -> None:
        self.frame = PairFrame.of(tokenizer)
        super()._set(model, tokenizer, max_length)

    @property
    def max_tokens(self) -> int:
        """How many tokens of two texts are read, beside those that stand around and between them."""
        return self.max_length - self.frame.size

    @overload
    def __call__(self, texts: str, others: str) -> A: ...

    @overload
    def __call__(self, texts: Sequence[str], others: Sequence[str]) -> list[A]: ...

    def __call__(self, texts: str | Sequence[str], others: str | Sequence[str]) -> A | list[A]:
        """Return the answer for two texts, or for each text and the one in the same place among the `others`.

        Raises
        ------
        InputError: what is passed are no texts, or not as many of one side as of the other.
        """
        if isinstance(texts, str):
            return self([texts], [require_text(others, "others")])[0]
        first, second = require_texts(texts, "texts"), require_texts(others, "others")
        if len(first) != len(second):
            what = f"{len(first):,} texts and {len(second):,} others"
            raise InputError(what, where="others", fix="Pass as many of one as of the other.")
        return self._predictions(first, second)

    def encode(self, texts: Sequence[str], others: Sequence[str]) -> list[Encoded]:
        """Return the ids of each pair's texts, whole.

        Raises
        ------
        InputError: one holds a token that the model has no row for.
        """
        sides = [self.tokenizer.encode_batch(side) for side in (texts, others)]
        frame = self.frame.joined(np.empty(0), np.empty(0)).tolist()
        for number, pair in enumerate(zip(*sides, strict=True), 1):
            where = f"pair {number:,} of {len(texts):,}"
            refuse_beyond([*frame, *pair[0], *pair[1]], self.model.config.vocab_size, self.tokenizer, where)
        first, second = ([np.asarray(ids, dtype=np.int32) for ids in side] for side in sides)
        return list(zip(first, second, strict=True))

    def window(self, first: np.ndarray, second: np.ndarray) -> Window:
        """Return two texts as the model reads them, cut to what fits."""
        kept, other = fitting(len(first), len(second), self.max_tokens)
        ids = self.frame.joined(first[:kept], second[:other])
        return ids, len(ids) - len(self.frame.after) - other

    def predict(self, examples: Sequence[TwoTexts], label: str | None = None) -> list[A]:
        """Return the answer to each example; shows progress if given a `label` for it."""
        return self._predictions([example.text for example in examples], [example.other for example in examples], label)

    def _predictions(self, texts: Sequence[str], others: Sequence[str], label: str | None = None) -> list[A]:
        windows = [self.window(*pair) for pair in self.encode(texts, others)]
        batches: Iterable[np.ndarray] = bucket_by_length(
            [ids for ids, _ in windows], tokens_per_batch(self.model, self.max_length)
        )
        if label is not None:
            batches = track(batches, label, unit="batches")
        was_training = self.model.training
        self.model.eval()
        logits, device = np.zeros((len(windows), len(self.labels))), self.model.model.embed_tokens.weight.device
        pad_id = padding(self.tokenizer, self.model.config.vocab_size)
        with torch.inference_mode():
            for rows in batches:
                read = (part.to(device) for part in pad_pairs([windows[row] for row in rows], pad_id))
                logits[rows] = self.model(*read).double().cpu().numpy()
        self.model.train(was_training)
        return [self.answer(row) for row in self.activate(logits).tolist()]

    def long_inputs(self, examples: Sequence[TwoTexts]) -> dict[str, int]:
        """Return how many pairs do not fit, by what is done with them."""
        encoded = self.encode([example.text for example in examples], [example.other for example in examples])
        return {"inputs cut": sum(len(first) + len(second) > self.max_tokens for first, second in encoded)}


class PairClassifier(BasePairClassifier[ClassPrediction]):
    """A classifier that gives two texts one of its labels.

    >>> judge = PairClassifier("judge")
    >>> judge("A dog runs.", "An animal moves.").label
    'entailment'
    """

    problem_type = "single_label_classification"

    def activate(self, logits: np.ndarray) -> np.ndarray:
        return torch.from_numpy(logits).softmax(-1).numpy()

    def answer(self, activated: list[float]) -> ClassPrediction:
        return ClassPrediction(tuple(self.labels), tuple(activated))


class PairScorer(BasePairClassifier[NumberPrediction]):
    """A regressor that gives two texts a number.

    >>> score = PairScorer("scorer")
    >>> score("A dog runs.", "An animal moves.").value
    3.8
    """

    problem_type = "regression"

    def activate(self, logits: np.ndarray) -> np.ndarray:
        return logits

    def answer(self, activated: list[float]) -> NumberPrediction:
        return NumberPrediction(activated[0])


def pad_pairs(windows: Sequence[Window], pad_id: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids (B, T) padded on the right, their lengths (B,), and their segments (B, T), 1 from the second text on."""
    tokens, lengths = pad([ids for ids, _ in windows], pad_id)
    begins = torch.tensor([begin for _, begin in windows])
    return tokens, lengths, (torch.arange(tokens.shape[1]) >= begins[:, None]).long()
