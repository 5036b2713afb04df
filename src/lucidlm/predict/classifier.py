"""A classifier as its users see it: texts in, probabilities of named labels out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.devices import tokens_at_once
from lucidlm.core.errors import InputError
from lucidlm.core.progress import track
from lucidlm.data.examples.records import ClassPrediction, LabelledText
from lucidlm.model.heads import SequenceClassifier
from lucidlm.tokenize.embedding_rows import padding, refuse_beyond
from lucidlm.tokenize.tokenizer import Tokenizer

TOKENS_PER_BATCH = 16_384
"""How many tokens, padding included, are read at once where memory allows it."""


class TextClassifier:
    """A `SequenceClassifier` with its tokenizer.

    A text longer than `max_length` tokens is read in windows of that length, all of it, and the windows vote: their
    logits are averaged, each weighing as much as it has tokens.
    """

    def __init__(self, model: SequenceClassifier, tokenizer: Tokenizer, max_length: int) -> None:
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

    @classmethod
    def from_pretrained(cls, source: str | Path, device: torch.device | None = None) -> TextClassifier:
        """Open a model directory that fine-tuning left, or whatever else `load_model` opens.

        Raises
        ------
        InputError: it is no model, or no classifier.
        """
        return cls.of(load_model(source, device=device))

    @classmethod
    def of(cls, loaded: LoadedModel) -> TextClassifier:
        """Likewise for a model that is loaded already; it stays on its device."""
        if not isinstance(loaded.model, SequenceClassifier):
            raise InputError(
                f"holds a {loaded.record['kind']} model, not a classifier",
                where=loaded.source,
                fix="Fine-tune it first: lucidlm finetune TASK --model … --data … --out ….",
            )
        provenance = loaded.record["provenance"]
        length = provenance.get("config", {}).get("max_length") or loaded.model.config.context_length
        # Those tuned here read an end of text, those tuned elsewhere what their own tokenizer puts there.
        tokenizer = loaded.require_tokenizer()
        return cls(loaded.model, tokenizer.with_end() if "task" in provenance else tokenizer, length)

    @property
    def labels(self) -> list[str]:
        """The names of the classes, in the order of the probabilities' columns."""
        return self.model.labels

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

    def predict(self, examples: Sequence[LabelledText], label: str | None = None) -> list[ClassPrediction]:
        """Judge the text of each example; shows progress if given a `label` for it."""
        rows = self.predict_encoded(self.encode([example.text for example in examples]), label)
        return [ClassPrediction(tuple(self.labels), tuple(row)) for row in rows.tolist()]

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Return the probabilities (texts, labels), float64, of each label for each text."""
        return self.predict_encoded(self.encode(texts), label="classifying")

    def predict_encoded(self, encoded: Sequence[np.ndarray], label: str | None = None) -> np.ndarray:
        """Likewise for token ids that `encode` returned; shows progress if given a `label` for it."""
        windows, owners = [], []
        for owner, ids in enumerate(encoded):
            for part in np.array_split(ids, max(1, math.ceil(len(ids) / self.max_tokens))):
                windows.append(self.window(part))
                owners.append(owner)
        batches: Iterable[np.ndarray] = bucket_by_length(windows, self._tokens_at_once())
        if label is not None:
            batches = track(batches, label, unit="batches")
        was_training = self.model.training
        self.model.eval()
        totals, weights = np.zeros((len(encoded), len(self.labels))), np.zeros((len(encoded), 1))
        with torch.inference_mode():
            for rows in batches:
                sizes = np.array([[len(windows[row])] for row in rows], dtype=np.float64)
                of = np.array([owners[row] for row in rows])
                np.add.at(totals, of, sizes * self._logits([windows[row] for row in rows]))
                np.add.at(weights, of, sizes)
        self.model.train(was_training)
        return torch.from_numpy(totals / weights).softmax(-1).numpy()

    def long_inputs(self, examples: Sequence[LabelledText]) -> dict[str, int]:
        """Return how many texts are longer than a window, by what is done with them."""
        encoded = self.encode([example.text for example in examples])
        return {"inputs read in windows": sum(len(ids) > self.max_tokens for ids in encoded)}

    def _tokens_at_once(self) -> int:
        config = self.model.config
        widths = 8 * config.embedding_dim + 3 * config.ff_dim + config.num_heads * self.max_length
        return tokens_at_once(self.model.model.embed_tokens.weight.device, 4 * widths, TOKENS_PER_BATCH)

    def _logits(self, windows: Sequence[np.ndarray]) -> np.ndarray:
        tokens, lengths = pad(windows, padding(self.tokenizer, self.model.config.vocab_size))
        device = self.model.model.embed_tokens.weight.device
        return self.model(tokens.to(device), lengths.to(device)).double().cpu().numpy()


def bucket_by_length(encoded: Sequence[np.ndarray], tokens: int) -> Iterator[np.ndarray]:
    """Yield indices of texts of like length, as many as fit into `tokens` tokens when padded to the longest of them."""
    order = np.argsort([len(ids) for ids in encoded], kind="stable")
    start = 0
    for end in range(1, len(order) + 1):
        full = end == len(order) or (end + 1 - start) * len(encoded[order[end]]) > tokens
        if full:
            yield order[start:end]
            start = end


def pad(encoded: Sequence[np.ndarray], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids (B, T) int64, padded on the right, and their lengths (B,) int64."""
    lengths = torch.tensor([len(ids) for ids in encoded])
    tokens = torch.full((len(encoded), int(lengths.max())), pad_id, dtype=torch.int64)
    for row, ids in enumerate(encoded):
        tokens[row, : len(ids)] = torch.from_numpy(np.asarray(ids, dtype=np.int64))
    return tokens, lengths
