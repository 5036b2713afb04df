"""Texts as vectors: texts in, unit vectors out whose inner product (their cosine) says how alike two texts are.

Any language model serves, as pretraining left it or tuned on pairs of texts (`lucidlm.train.matches`). A tuned one is a
model directory like any other, whose record says how its states are pooled; beside it stand the two files that
sentence-transformers reads to do the same (Reimers and Gurevych 2019, arXiv:1908.10084).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from lucidlm.core.errors import InputError
from lucidlm.core.io import write_json, write_text
from lucidlm.core.products import fast_products
from lucidlm.core.progress import track
from lucidlm.data.tokenizer import Tokenizer
from lucidlm.model.classify import TOKENS_PER_BATCH, bucket_by_length, pad
from lucidlm.model.directory import load_model
from lucidlm.model.family import family_of
from lucidlm.model.heads import LanguageModel, Pooling, text_states


class TextEmbedder:
    """A language model that turns texts into unit vectors.

    The vector of a text is the mean of its tokens' states, or the state of the end-of-text token after it. A text
    longer than `max_length` tokens is read in windows of that length, all of it; their states are averaged, each
    weighing as much as it has tokens.

    Parameters
    ----------
    max_length: tokens read at once; None: the model's context.

    Raises
    ------
    InputError: `max_length` is more than the model's context.
    """

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer, pooling: Pooling = "mean", max_length: int | None = None
    ) -> None:
        context = model.config.context_length
        self.model, self.tokenizer, self.max_length = model, tokenizer, max_length or context
        self.pooling: Pooling = pooling
        if self.max_length > context:
            raise InputError(
                f"texts of {self.max_length:,} tokens are longer than the model's context of {context:,}",
                where="max_length",
                fix=f"Pass at most {context}.",
            )

    @classmethod
    def from_pretrained(cls, directory: str | Path, device: torch.device | None = None) -> TextEmbedder:
        """Open a model directory: a pretrained language model, or one tuned on pairs of texts.

        Raises
        ------
        InputError: it is not a model directory, or not a language model's with its tokenizer.
        """
        loaded = load_model(directory)
        if not isinstance(loaded.model, LanguageModel) or loaded.tokenizer is None:
            kind = "no tokenizer" if loaded.tokenizer is None else f"a {loaded.record['kind']} model"
            raise InputError(
                f"holds {kind}: texts are embedded by a language model with its tokenizer",
                where=directory,
                fix="Pass a pretrained model, or one tuned for semantic-search or recommendation.",
            )
        config = loaded.record["provenance"].get("config", {})
        model = loaded.model.to(device or torch.device("cpu"))
        return cls(model, loaded.tokenizer, config.get("pooling", "mean"), config.get("max_length"))

    @property
    def dimension(self) -> int:
        """The number D of a vector's components."""
        return self.model.config.embedding_dim

    @property
    def room(self) -> int:
        """How many tokens of a text a window holds, beside those around it."""
        return self.max_length - len(self.tokenizer.prefix) - len(self._after)

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return each text's token ids (int32), whole.

        Raises
        ------
        InputError: a text is blank: there is nothing to embed.
        """
        for number, text in enumerate(texts, 1):
            if not text.strip():
                raise InputError(f"text {number:,} of {len(texts):,} is empty", fix="Leave it out.")
        return [np.asarray(ids, dtype=np.int32) for ids in self.tokenizer.encode_batch(texts)]

    def window(self, ids: np.ndarray) -> np.ndarray:
        """Return a window as the model reads it: with the end-of-text token where that is what the vector is read from."""
        return np.array([*self.tokenizer.prefix, *ids, *self._after], dtype=np.int32)

    @property
    def _after(self) -> list[int]:
        return self.tokenizer.suffix or [self.tokenizer.eos_id] * (self.pooling == "last")

    def long(self, encoded: Sequence[np.ndarray]) -> int:
        """Return how many of the texts take several windows."""
        return sum(len(ids) > self.room for ids in encoded)

    def embed(self, texts: Sequence[str], label: str | None = None) -> np.ndarray:
        """Return the unit vectors (n, D), float32, of n texts; shows progress if given a `label` for it.

        Raises
        ------
        InputError: a text is blank.
        """
        return self.embed_encoded(self.encode(texts), label)

    def embed_encoded(self, encoded: Sequence[np.ndarray], label: str | None = None) -> np.ndarray:
        """Likewise for token ids that `encode` returned."""
        windows, owners = [], []
        for owner, ids in enumerate(encoded):
            for part in np.array_split(ids, max(1, math.ceil(len(ids) / self.room))):
                windows.append(self.window(part))
                owners.append(owner)
        batches: Iterable[np.ndarray] = bucket_by_length(windows, TOKENS_PER_BATCH)
        if label is not None:
            batches = track(batches, label, unit="batches")
        device, was_training = self.model.head.device, self.model.training
        self.model.eval()
        sums = np.zeros((len(encoded), self.dimension))
        with torch.inference_mode(), fast_products(device):
            for rows in batches:
                tokens, lengths = pad([windows[row] for row in rows], self.tokenizer.pad_id)
                states = text_states(self.model.model, tokens.to(device), lengths.to(device), self.pooling)
                weighed = states.double().cpu().numpy() * lengths.numpy()[:, None]
                np.add.at(sums, np.array([owners[row] for row in rows]), weighed)
        self.model.train(was_training)
        return unit(sums)

    def describe_to_sentence_transformers(self, directory: str | Path) -> None:
        """Write beside the saved model what makes sentence-transformers embed as this does: `modules.json`, `1_Pooling`.

        Nothing is written where it would not do the same: it opens what transformers opens, and ends texts otherwise.
        """
        directory = Path(directory)
        if self.pooling != "mean" or family_of(self.model.config) is None:
            return
        modules = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
        pooling = {"word_embedding_dimension": self.dimension, "pooling_mode_mean_tokens": True}
        write_json(directory / "1_Pooling" / "config.json", pooling)
        (directory / "2_Normalize").mkdir(exist_ok=True)
        write_json(directory / "sentence_bert_config.json", {"max_seq_length": self.max_length, "do_lower_case": False})
        listed = [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (path, kind) in enumerate(modules)
        ]
        write_text(directory / "modules.json", json.dumps(listed, indent=2) + "\n")


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return `vectors` (n, D) at length one, float32."""
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)).astype(np.float32)
