"""A prediction as a function of what a model reads: what the methods of attribution and the checks ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from lucidlm.core.errors import InputError
from lucidlm.explain.inside.trace import backbone_of
from lucidlm.explain.pieces import Piece
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, SequenceClassifier, SpanExtractor
from lucidlm.model.transformer import Transformer
from lucidlm.tokenize.tokenizer import Tokenizer, TokenizerKind

TOKENS_AT_ONCE = 1024
"""Tokens that are read at once; more would not be faster on a CPU."""


SPACES: dict[TokenizerKind, str] = {"characters": " ", "sentencepiece": "▁", "unigram": "▁"}
"""How tokenizers spell a space in their vocabulary; BERT's drops them all."""

MARKS = (".", ",", "。", "，")
"""What stands for the blank when another one is tried."""


class Row(NamedTuple):
    """What is left of the input: `tokens` (T,) int64, and the `places` (T,) int64 in the whole where they stand."""

    tokens: Tensor
    places: Tensor


class Score(Protocol):
    """A figure (B,) for each row of tokens (B, T) int64, whatever their number T, at `places` (B, T) of the whole input.

    Without places the rows are as long as the whole, and what a reader counts beside them is as for the whole too.
    """

    def __call__(self, tokens: Tensor, places: Tensor | None = None) -> Tensor: ...


@dataclass
class Prediction:
    """A prediction about a text.

    Parameters
    ----------
    kind, target: what is predicted ("next token", "label", "answer"), and its name.
    rather_than: the name of what it is compared with; None: nothing, its probability is explained by itself.
    ids: (T,) int64, the text as the model reads it; `pieces` are the parts of the text in them.
    blank, blank_text: the baseline token that replaces pieces, and how it is shown.
    other_blank: another one that says about as little, to see what depends on the choice; None: there is none.
    model: what reads the text, its head included.
    score: the target's log-probability in nats, less that of what it is compared with.
    margin: the target's logit less the mean one, or less that of what it is compared with: it does not saturate.
    read_at: the places whose states the target is read from.
    length: how many tokens the target has; a label counts as one, and so does an answer.
    differentiable: whether gradients reach all that the score depends on but for what `hints` says.
    hints: whether words that question and passage share are marked or counted, which gradients take as given.
    passage: which piece is the first of the passage, where the text is a question and a passage.
    held: the pieces that cannot be deleted, since the target itself is in them.
    settle: from the places that pieces leave to all that go with them.
    part: the first character of the passage that is read and the one after the last, where it is not read whole.
    """

    kind: str
    target: str
    rather_than: str | None
    ids: Tensor
    pieces: list[Piece]
    blank: int
    blank_text: str
    other_blank: tuple[int, str] | None
    model: LanguageModel | SequenceClassifier | SpanExtractor
    score: Score
    margin: Score
    read_at: slice | list[int]
    length: int = 1
    differentiable: bool = True
    hints: bool = False
    passage: int | None = None
    held: frozenset[int] = frozenset()
    settle: Callable[[set[int]], set[int]] = set
    part: tuple[int, int] | None = None

    @property
    def backbone(self) -> Transformer:
        """The model without its head."""
        return backbone_of(self.model)

    @property
    def embedding(self) -> nn.Embedding:
        """What maps tokens to vectors."""
        return self.backbone.embed_tokens

    @contextmanager
    def reading(self, vectors: Tensor) -> Iterator[None]:
        """Let the model read `vectors` (B, T, D) in place of the embeddings of the first T tokens, while entered."""
        hook = self.embedding.register_forward_hook(
            lambda module, inputs, output: torch.cat([vectors, output[:, vectors.shape[1] :]], 1)
        )
        try:
            yield
        finally:
            hook.remove()

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Return the probabilities that `scores` stand for, of the same shape.

        Of a continuation: for each token, the geometric mean. Of a comparison: of the target, if it is one of the two.
        """
        return np.exp(scores / self.length) if self.rather_than is None else 1 / (1 + np.exp(-scores))

    def by_piece(self, values: Tensor) -> np.ndarray:
        """Return the sums (pieces,) float64 of what each token (T,) has."""
        found = values.detach().double().cpu().numpy()
        return np.array([found[piece.places].sum() for piece in self.pieces])

    @property
    def whole(self) -> Row:
        """All of the input."""
        return Row(self.ids, torch.arange(len(self.ids), device=self.ids.device))

    @property
    def blanked(self) -> Row:
        """The input with `blank` in place of all of the text's tokens."""
        return self.without(range(len(self.pieces)), self.blank)

    def without(self, pieces: Sequence[int], blank: int | None = None) -> Row:
        """Return the input without some of the `pieces`: deleted, or replaced by `blank`."""
        gone = sorted(self.settle({place for piece in pieces for place in self.pieces[piece].places}))
        if blank is not None:
            places = torch.tensor(gone, dtype=torch.int64, device=self.ids.device)
            return Row(self.ids.index_fill(0, places, blank), self.whole.places)
        kept = torch.ones(len(self.ids), dtype=torch.bool, device=self.ids.device)
        kept[gone] = False
        return Row(self.ids[kept], self.whole.places[kept])

    def scores(self, rows: Sequence[Row]) -> np.ndarray:
        """Return the score of each row (float64); rows of one length are read together, nothing is padded.

        Rows that are the same are read once: random orders of a short text leave few that differ.
        """
        keys = [(*row.tokens.tolist(), *row.places.tolist()) for row in rows]
        different, found = dict(zip(keys, rows, strict=True)), dict[tuple[int, ...], float]()
        for length in {len(key) for key in different}:
            alike = [key for key in different if len(key) == length]
            size = max(1, 2 * TOKENS_AT_ONCE // length)
            for start in range(0, len(alike), size):
                part = alike[start : start + size]
                tokens, places = (torch.stack(parts) for parts in zip(*(different[key] for key in part), strict=True))
                with torch.inference_mode():
                    found.update(zip(part, self.score(tokens, places).double().tolist(), strict=True))
        return np.array([found[key] for key in keys])


def blank_of(tokenizer: Tokenizer, model: ModelConfig) -> tuple[int, str]:
    """Return the token of a space, a common token that says little, and how it is shown.

    Without one (BERT's tokenizer drops spaces) it is the mask of a masked model, which is trained to see it where it is
    told nothing, else the token of unknown characters. Other control tokens will not do: many models rest attention on
    them as on the first token, and a path to them crosses places where the output jumps; nor do zeros, since norms undo
    what scales a vector.
    """
    written = "Ġ" if tokenizer.byte_level else SPACES.get(tokenizer.kind)
    space = None if written is None else tokenizer.core.token_to_id(written)
    if space is not None and space < model.vocab_size:
        return space, " "
    others = (None if model.causal else tokenizer.find("mask_token"), tokenizer.unknown_id, tokenizer.eos_id)
    found = next((index for index in others if index is not None and index < model.vocab_size), 0)
    return found, tokenizer.core.id_to_token(found) or ""


def mark_of(tokenizer: Tokenizer, model: ModelConfig) -> tuple[int, str] | None:
    """Return the token of a full stop or a comma, and how it is shown."""
    found = ((tokenizer.core.token_to_id(mark), mark) for mark in MARKS)
    return next(((index, mark) for index, mark in found if index is not None and index < model.vocab_size), None)


def require_fit(length: int, most: int) -> None:
    """Raise an InputError if a text of `length` tokens is more than a model reads at once."""
    if length > most:
        raise InputError(
            f"has {length:,} tokens, the model reads {most:,} at once", where="TEXT", fix="Explain a part of it."
        )


def same_as_target(name: str) -> InputError:
    """Return the error of a target that is to be compared with itself."""
    return InputError(
        f"{name!r} is the target itself", where="--rather-than", fix="Pass another one, which it is compared with."
    )
