"""What is explained: a target's log-probability, or by how much it passes another's, as a function of what a model reads.

A causal model reads the text as in generation: after the tokenizer's beginning-of-text tokens, if it has any. Without
them the first piece is also the attention sink (Xiao et al. 2023, arXiv:2309.17453), which adds to its attribution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.explain.pieces import Piece, Unit, cut, joined_by
from lucidlm.inference.end_of_text import ends_of
from lucidlm.inference.sampler import suppressed_tokens
from lucidlm.model.config import ModelConfig, Pooling
from lucidlm.model.heads import LanguageModel, SequenceClassifier
from lucidlm.predict.classifier import BaseTextClassifier, TextClassifier
from lucidlm.predict.multi_label_classifier import MultiLabelClassifier
from lucidlm.tokenize.embedding_rows import refuse_beyond
from lucidlm.tokenize.tokenizer import Tokenizer, TokenizerKind

TOKENS_AT_ONCE = 1024
"""Tokens that are read at once; more would not be faster on a CPU."""


SPACES: dict[TokenizerKind, str] = {"characters": " ", "sentencepiece": "▁", "unigram": "▁"}
"""How tokenizers spell a space in their vocabulary; BERT's drops them all."""

MARKS = (".", ",", "。", "，")
"""What stands for the blank when another one is tried."""


class Score(Protocol):
    """A figure (B,) for each row of tokens (B, T) int64, whatever their number T."""

    def __call__(self, tokens: Tensor) -> Tensor: ...


@dataclass
class Prediction:
    """A prediction about a text.

    Parameters
    ----------
    kind, target: what is predicted ("next token", "label"), and its name.
    rather_than: the name of what it is compared with; None: nothing, its probability is explained by itself.
    ids: (T,) int64, the text as the model reads it; `pieces` are the parts of the text in them.
    blank, blank_text: the baseline token that replaces pieces, and how it is shown.
    other_blank: another one that says about as little, to see what depends on the choice; None: there is none.
    model: what reads the text, its head included.
    score: the target's log-probability in nats, less that of what it is compared with.
    margin: the target's logit less the mean one, or less that of what it is compared with: it does not saturate.
    pooling: whose states the target is read from: those of the "last" tokens, the "first" one, or the "mean" of all.
    length: how many tokens the target has; a label counts as one.
    """

    kind: str
    target: str
    rather_than: str | None
    ids: Tensor
    pieces: list[Piece]
    blank: int
    blank_text: str
    other_blank: tuple[int, str] | None
    model: LanguageModel | SequenceClassifier
    score: Score
    margin: Score
    pooling: Pooling
    length: int = 1
    differentiable: bool = True
    """Whether the score depends on the tokens through the Transformer alone."""

    @property
    def embedding(self) -> nn.Embedding:
        """What maps tokens to vectors."""
        return self.model.model.embed_tokens

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
    def blanked(self) -> Tensor:
        """The tokens (T,) with `blank` in place of all of the text's."""
        return self.without(range(len(self.pieces)), self.blank)

    def without(self, pieces: Sequence[int], blank: int | None = None) -> Tensor:
        """Return the tokens without some of the `pieces`: deleted, or replaced by `blank`."""
        places = [place for piece in pieces for place in self.pieces[piece].places]
        if blank is not None:
            return self.ids.index_fill(0, torch.tensor(places, dtype=torch.int64, device=self.ids.device), blank)
        kept = torch.ones(len(self.ids), dtype=torch.bool, device=self.ids.device)
        kept[places] = False
        return self.ids[kept]

    def scores(self, rows: Sequence[Tensor]) -> np.ndarray:
        """Return the score of each row of tokens (float64); rows of one length are read together, nothing is padded.

        Rows that are the same are read once: random orders of a short text leave few that differ.
        """
        keys = [tuple(row.tolist()) for row in rows]
        different, found = dict(zip(keys, rows, strict=True)), dict[tuple[int, ...], float]()
        for length in {len(key) for key in different}:
            alike = [key for key in different if len(key) == length]
            size = max(1, TOKENS_AT_ONCE // length)
            for start in range(0, len(alike), size):
                part = alike[start : start + size]
                with torch.inference_mode():
                    scores = self.score(torch.stack([different[key] for key in part])).double().tolist()
                found.update(zip(part, scores, strict=True))
        return np.array([found[key] for key in keys])


def predict(
    loaded: LoadedModel,
    text: str,
    target: str | None = None,
    device: torch.device | None = None,
    *,
    rather_than: str | None = None,
    by: Unit = "token",
) -> Prediction:
    """Return the prediction to explain: of the next token, or of the text's label.

    Parameters
    ----------
    target: a continuation, as it would follow the text (a new word begins with a space), or a label; None: the
        likeliest one.
    rather_than: another one, which it is compared with: why the one rather than the other (Yin & Neubig 2022,
        arXiv:2202.10419).
    by: what the pieces are.

    Raises
    ------
    InputError: the text is empty or too long, the target is none, or the model is of a kind that is not explained.
    """
    if not text.strip():
        raise InputError("is empty", where="TEXT", fix="Pass a text to explain.")
    for name, given in ("--target", target), ("--rather-than", rather_than):
        if given == "":
            raise InputError("is empty", where=name, fix="Pass a continuation or a label, or leave it out.")
    if loaded.tokenizer is None:
        raise InputError("the model has no tokenizer.json", where="MODEL", fix="Restore it beside the weights.")
    loaded.model.to(device or torch.device("cpu"))
    if isinstance(loaded.model, SequenceClassifier) and not loaded.record["provenance"].get("pairs"):
        several = loaded.model.problem_type == "multi_label_classification"
        found = _label((MultiLabelClassifier if several else TextClassifier).of(loaded), text, target, rather_than)
    elif isinstance(loaded.model, LanguageModel) and loaded.model.config.causal:
        found = _next_token(loaded.model, loaded.tokenizer, text, target, rather_than)
    else:
        raise InputError(
            "holds a model that finds spans, tags words, fills gaps or reads pairs, which is not explained yet",
            where="MODEL",
            fix="Pass a causal language model or a classifier of texts.",
        )
    found.pieces = joined_by(by, text, found.pieces)
    return found


def _next_token(
    model: LanguageModel, tokenizer: Tokenizer, text: str, target: str | None, rather_than: str | None
) -> Prediction:
    ids, pieces = cut(tokenizer, text, first=len(tokenizer.prefix))
    read, size, device = [*tokenizer.prefix, *ids], model.config.vocab_size, model.head.device
    refuse_beyond(read, size, tokenizer, "TEXT")
    _fits(len(read), model.config.context_length)
    head = torch.tensor(read, device=device)
    if target is None:
        with torch.inference_mode():
            logits = model.logits(model.model(head[None])[:, -1])
            never = suppressed_tokens(size, tokenizer, ends_of(tokenizer, model.generation.ends, size)).to(device)
            sought = [int(logits[0].masked_fill(never, float("-inf")).argmax())]
    else:
        sought = _sought(tokenizer, text, ids, target, size, "--target")
    other = None if rather_than is None else _sought(tokenizer, text, ids, rather_than, size, "--rather-than")
    if other == sought:
        raise _same(tokenizer.decode(sought, skip_special=False))
    for continuation in sought, other or []:
        _fits(len(read) + max(0, len(continuation) - 1), model.config.context_length)
    return continued(model, tokenizer, head, pieces, sought, other)


def continued(
    model: LanguageModel,
    tokenizer: Tokenizer,
    head: Tensor,
    pieces: list[Piece],
    sought: list[int],
    other: list[int] | None = None,
) -> Prediction:
    """Return the prediction that `head` (T,), whose text is `pieces`, goes on by `sought`, rather than by `other`."""
    alike = other is not None and other[:-1] == sought[:-1]

    def logits_of(continuation: list[int], tokens: Tensor) -> Tensor:
        """Return the logits (B, n, V) at which each of the n tokens of a continuation of `tokens` (B, T) is judged."""
        behind = tokens.new_tensor(continuation[:-1]).expand(len(tokens), -1)
        return model.logits(model.model(torch.cat([tokens, behind], 1))[:, -len(continuation) :])

    def of(continuation: list[int], values: Tensor) -> Tensor:
        places = torch.tensor(continuation, device=values.device).expand(len(values), -1)[..., None]
        return values.gather(-1, places).sum((1, 2))

    def score(tokens: Tensor) -> Tensor:
        logprobs = logits_of(sought, tokens).log_softmax(-1)
        if other is None:
            return of(sought, logprobs)
        return of(sought, logprobs) - of(other, logprobs if alike else logits_of(other, tokens).log_softmax(-1))

    def margin(tokens: Tensor) -> Tensor:
        logits = logits_of(sought, tokens)
        if other is None:
            return of(sought, logits) - logits.mean(-1).sum(1)
        return of(sought, logits) - of(other, logits if alike else logits_of(other, tokens))

    names = [None if found is None else tokenizer.decode(found, skip_special=False) for found in (sought, other)]
    return Prediction(
        "next token",
        names[0] or "",
        names[1],
        head,
        pieces,
        *_blank(tokenizer, model.config),
        _mark(tokenizer, model.config),
        model,
        score,
        margin,
        "last",
        len(sought),
    )


def _sought(tokenizer: Tokenizer, text: str, ids: list[int], target: str, size: int, where: str) -> list[int]:
    found = _behind(tokenizer, text, ids, target)
    if not found or tokenizer.unknown_id in found:
        raise InputError(f"{target!r} is nothing that this model can write", where=where, fix="Pass another.")
    refuse_beyond(found, size, tokenizer, where)
    return found


def _same(name: str) -> InputError:
    return InputError(
        f"{name!r} is the target itself", where="--rather-than", fix="Pass another one, which it is compared with."
    )


def _behind(tokenizer: Tokenizer, text: str, ids: list[int], target: str) -> list[int]:
    """Return the ids of `target` as it stands behind `text`, whose ids are `ids`; by itself where the two merge."""
    whole = tokenizer.encode(text + target)
    return whole[len(ids) :] if whole[: len(ids)] == ids else tokenizer.encode(target)


def _label(classifier: BaseTextClassifier[Any], text: str, target: str | None, rather_than: str | None) -> Prediction:
    model, tokenizer = classifier.model, classifier.tokenizer
    for name, given in ("--target", target), ("--rather-than", rather_than):
        if given is not None and given not in model.labels:
            raise InputError(
                f"there is no label {given!r}", where=name, fix=f"Choose one of: {', '.join(model.labels)}."
            )
    ids, pieces = cut(tokenizer, text, first=len(tokenizer.prefix))
    refuse_beyond(tokenizer.whole(ids), model.config.vocab_size, tokenizer, "TEXT")
    _fits(len(ids), classifier.max_tokens)
    read = torch.tensor(tokenizer.whole(ids)).to(model.model.embed_tokens.weight.device)
    several = classifier.problem_type == "multi_label_classification"

    def logits_of(tokens: Tensor) -> Tensor:
        lengths = torch.full((len(tokens),), tokens.shape[1], device=tokens.device)
        logits = model(tokens, lengths)  # (B, labels)
        if model.wide is not None:
            texts = [tokenizer.decode(row) for row in tokens.tolist()]
            logits = torch.from_numpy(model.wide.add(logits.double().cpu().numpy(), texts))
        return logits

    def logprobs(tokens: Tensor) -> Tensor:
        logits = logits_of(tokens)
        return functional.logsigmoid(logits) if several else logits.log_softmax(-1)

    if target is None:
        with torch.inference_mode():
            target = model.labels[int(logprobs(read[None])[0].argmax())]
    if rather_than == target:
        raise _same(target)
    index = model.labels.index(target)
    other = None if rather_than is None else model.labels.index(rather_than)

    def score(tokens: Tensor) -> Tensor:
        found = logprobs(tokens)
        return found[:, index] if other is None else found[:, index] - found[:, other]

    def margin(tokens: Tensor) -> Tensor:
        logits = logits_of(tokens)
        if other is not None:
            return logits[:, index] - logits[:, other]
        return logits[:, index] if several else logits[:, index] - logits.mean(-1)

    return Prediction(
        "label",
        target,
        rather_than,
        read,
        pieces,
        *_blank(tokenizer, model.config),
        _mark(tokenizer, model.config),
        model,
        score,
        margin,
        model.pooling,
        differentiable=model.wide is None,
    )


def _fits(length: int, most: int) -> None:
    if length > most:
        raise InputError(
            f"has {length:,} tokens, the model reads {most:,} at once", where="TEXT", fix="Explain a part of it."
        )


def _blank(tokenizer: Tokenizer, model: ModelConfig) -> tuple[int, str]:
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


def _mark(tokenizer: Tokenizer, model: ModelConfig) -> tuple[int, str] | None:
    """Return the token of a full stop or a comma, and how it is shown."""
    found = ((tokenizer.core.token_to_id(mark), mark) for mark in MARKS)
    return next(((index, mark) for index, mark in found if index is not None and index < model.vocab_size), None)
