"""Texts as vectors: texts in, unit vectors out whose inner product (their cosine) says how alike two texts are.

Any language model serves, as pretraining left it or tuned on pairs of texts
(`lucidlm.train.finetune.contrastive_objective`). A tuned one is a model directory like any other, whose record says how
its states are pooled; beside it stand the files that sentence-transformers reads to do the same. Models that were tuned
there are embedded with as those files say (`lucidlm.model.pooling`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch

from lucidlm.checkpoint.families import family_of
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.checkpoint.sentence_files import MODULES, PROMPTS, write_sentence_settings
from lucidlm.core.arguments import require_texts
from lucidlm.core.errors import InputError
from lucidlm.core.matmul import fast_matmul
from lucidlm.core.progress import track
from lucidlm.model.config import Pooling
from lucidlm.model.heads import LanguageModel
from lucidlm.model.pooling import Purpose, SentenceSettings
from lucidlm.predict.batching import TOKENS_PER_BATCH, bucket_by_length, pad
from lucidlm.predict.text_model import TextModel
from lucidlm.tokenize.embedding_rows import padding, refuse_beyond
from lucidlm.tokenize.tokenizer import Tokenizer

POOLINGS: dict[Pooling, str] = {"first": "cls", "mean": "mean", "last": "lasttoken"}
"""What sentence-transformers calls our ways of pooling."""


class TextEmbedder(TextModel[LanguageModel]):
    """A language model that turns texts into vectors, of length one for most models.

    >>> embed = TextEmbedder("finder")
    >>> embed(["good film", "fine film"]).shape
    (2, 256)

    The vector of a text is the mean of its tokens' states, or the state of the first one, or of the end-of-text token
    after it. A text longer than `max_length` tokens is read in windows of that length, all of it; their states are
    averaged, each weighing as much as it has tokens.

    Parameters
    ----------
    source: any language model, best one tuned for semantic search or by sentence-transformers.
    device: auto, cpu, cuda, cuda:1, mps.

    Raises
    ------
    InputError: there is no such model, it is no language model with its tokenizer, or it needs a module of
        sentence-transformers that is not supported.
    """

    @classmethod
    def from_model(
        cls,
        model: LanguageModel,
        tokenizer: Tokenizer,
        pooling: Pooling = "mean",
        max_length: int | None = None,
        *,
        sentence: SentenceSettings | None = None,
    ) -> Self:
        """Use a model in memory, such as one that is being trained: the current weights make the vectors.

        Parameters
        ----------
        max_length: tokens read at once; None: the model's context.
        sentence: how texts become vectors of models that were tuned with sentence-transformers, in place of `pooling`;
            those without a normalisation are not of length one.

        Raises
        ------
        InputError: `max_length` is more than the model's context, or leaves no room for a text.
        """
        made = cls.__new__(cls)
        made._set(model, tokenizer, pooling, max_length, sentence=sentence)
        return made

    def _open(self, loaded: LoadedModel) -> None:
        if not isinstance(loaded.model, LanguageModel) or loaded.tokenizer is None:
            kind = "no tokenizer" if loaded.tokenizer is None else f"a {loaded.record['kind']} model"
            raise InputError(
                f"holds {kind}: texts are embedded by a language model with its tokenizer",
                where=loaded.source,
                fix="Pass a pretrained model, or one tuned for semantic-search or recommendation.",
            )
        model = loaded.model
        config, sentence = loaded.record["provenance"].get("config", {}), model.sentence
        if config.get("pooling") is not None or sentence is None:
            self._set(model, loaded.tokenizer, config.get("pooling") or "mean", config.get("max_length"))
            return
        if sentence.refused is not None:
            raise InputError(sentence.refused, where=Path(loaded.source) / MODULES, fix="Choose another model.")
        length = min(sentence.max_length or model.config.context_length, model.config.context_length)
        self._set(model, loaded.tokenizer, max_length=length, sentence=sentence)

    def _set(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        pooling: Pooling = "mean",
        max_length: int | None = None,
        *,
        sentence: SentenceSettings | None = None,
    ) -> None:
        context = model.config.context_length
        self.model, self.tokenizer, self.max_length = model, tokenizer, max_length or context
        self.pooling: Pooling = pooling
        self.made_elsewhere = sentence is not None
        self.sentence = sentence or SentenceSettings((POOLINGS[pooling],), max_length=self.max_length)
        if self.max_length > context:
            raise InputError(
                f"texts of {self.max_length:,} tokens are longer than the model's context of {context:,}",
                where="max_length",
                fix=f"Pass at most {context}.",
            )
        if self.max_tokens < 1:
            raise InputError(
                f"{self.max_length} tokens have no room for a text", where="max_length", fix="Pass 16, say."
            )

    def __call__(self, texts: str | Sequence[str], *, purpose: Purpose | None = None) -> np.ndarray:
        """Return the vector (D,) of a text, float32, or the vectors (n, D) of n texts.

        Parameters
        ----------
        purpose: "query" or "document", where the model has a prompt for each.

        Raises
        ------
        InputError: what is passed is no text and no list of them, or a text is blank.
        """
        if isinstance(texts, str):
            return self([texts], purpose=purpose)[0]
        return self.embed(require_texts(texts, "texts"), purpose=purpose)

    def __repr__(self) -> str:
        return self._shown(f"{self.dimension} dimensions")

    @property
    def dimension(self) -> int:
        """The number D of a vector's components."""
        return len(self.sentence.poolings) * self.model.config.embedding_dim

    @property
    def max_tokens(self) -> int:
        """How many tokens of a text a window holds, beside those around it."""
        return self.max_length - len(self.tokenizer.prefix) - len(self._after)

    def encode(self, texts: Sequence[str], purpose: Purpose | None = None) -> list[np.ndarray]:
        """Return each text's token ids (int32), whole, behind the prompt that the model has for the purpose, if any.

        Raises
        ------
        InputError: a text is blank: there is nothing to embed; or it holds a token that the model has no row for.
        """
        for number, text in enumerate(texts, 1):
            if not text.strip():
                raise InputError(f"text {number:,} of {len(texts):,} is empty", fix="Leave it out.")
        if self.made_elsewhere:
            prompt, lower = self.sentence.prompt(purpose), self.sentence.lower
            texts = [(prompt + text).strip() for text in texts]
            texts = [text.lower() for text in texts] if lower else texts
        encoded = [np.asarray(ids, dtype=np.int32) for ids in self.tokenizer.encode_batch(texts)]
        for number, ids in enumerate(encoded, 1):
            where = f"text {number:,} of {len(texts):,}"
            refuse_beyond(self.window(ids), self.model.config.vocab_size, self.tokenizer, where)
        return encoded

    def window(self, ids: np.ndarray) -> np.ndarray:
        """Return a window as the model reads it: with the end-of-text token where that is what the vector is read from."""
        return np.array([*self.tokenizer.prefix, *ids, *self._after], dtype=np.int32)

    @property
    def _after(self) -> list[int]:
        closing = self.pooling == "last" and not self.made_elsewhere
        return self.tokenizer.suffix or [self.tokenizer.eos_id] * closing

    def long(self, encoded: Sequence[np.ndarray]) -> int:
        """Return how many of the texts take several windows."""
        return sum(len(ids) > self.max_tokens for ids in encoded)

    def embed(self, texts: Sequence[str], label: str | None = None, purpose: Purpose | None = None) -> np.ndarray:
        """Return the vectors (n, D), float32, of n texts; shows progress if given a `label` for it.

        Raises
        ------
        InputError: as `encode`.
        """
        return self.embed_encoded(self.encode(texts, purpose), label)

    def embed_encoded(self, encoded: Sequence[np.ndarray], label: str | None = None) -> np.ndarray:
        """Likewise for token ids that `encode` returned."""
        windows, owners = [], []
        for owner, ids in enumerate(encoded):
            for part in np.array_split(ids, max(1, math.ceil(len(ids) / self.max_tokens))):
                windows.append(self.window(part))
                owners.append(owner)
        batches: Iterable[np.ndarray] = bucket_by_length(windows, TOKENS_PER_BATCH)
        if label is not None:
            batches = track(batches, label, unit="batches")
        device, was_training = self.model.head.device, self.model.training
        filler = padding(self.tokenizer, self.model.config.vocab_size)
        self.model.eval()
        sums, weights = np.zeros((len(encoded), self.dimension)), np.zeros((len(encoded), 1))
        with torch.inference_mode(), fast_matmul(device):
            for rows in batches:
                tokens, lengths = pad([windows[row] for row in rows], filler)
                states = self.sentence.states(self.model.model, tokens.to(device), lengths.to(device))
                sizes, of = lengths.numpy()[:, None], np.array([owners[row] for row in rows])
                np.add.at(sums, of, states.double().cpu().numpy() * sizes)
                np.add.at(weights, of, sizes)
        self.model.train(was_training)
        return unit(sums) if self.sentence.normalize else (sums / weights).astype(np.float32)

    def comparable(self, vectors: np.ndarray) -> np.ndarray:
        """Return vectors (n, D) whose inner products are the similarities that the model was tuned for.

        Raises
        ------
        InputError: those are neither cosines nor inner products.
        """
        if self.sentence.similarity not in ("cosine", "dot"):
            raise InputError(
                f"its vectors are compared by {self.sentence.similarity!r}; known are cosine and dot", where=PROMPTS
            )
        return unit(vectors) if self.sentence.similarity == "cosine" else vectors

    def describe_to_sentence_transformers(self, directory: str | Path) -> None:
        """Write beside the saved model what makes sentence-transformers embed as this does: `modules.json`, `1_Pooling`.

        Nothing is written where it would not do the same: it opens what transformers opens, and ends texts otherwise.
        """
        if self._after == self.tokenizer.suffix and family_of(self.model.config) is not None:
            write_sentence_settings(self.sentence, Path(directory), self.model.config.embedding_dim)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return `vectors` (n, D) at length one, float32."""
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)).astype(np.float32)
