"""What is explained: the log-probability of a target, as a function of the tokens that a model reads.

A causal model reads the text as in generation: after the tokenizer's beginning-of-text tokens, if it has any. Without
them the first piece is also the attention sink (Xiao et al. 2023, arXiv:2309.17453), which adds to its attribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.explain.pieces import Piece, cut
from lucidlm.inference.end_of_text import ends_of
from lucidlm.inference.sampler import suppressed_tokens
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, SequenceClassifier
from lucidlm.predict.classifier import BaseTextClassifier, TextClassifier
from lucidlm.predict.multi_label_classifier import MultiLabelClassifier
from lucidlm.tokenize.embedding_rows import refuse_beyond
from lucidlm.tokenize.tokenizer import Tokenizer, TokenizerKind

TOKENS_AT_ONCE = 1024
"""Tokens that are read at once; more would not be faster on a CPU."""


SPACES: dict[TokenizerKind, str] = {"characters": " ", "sentencepiece": "▁", "unigram": "▁"}
"""How tokenizers spell a space in their vocabulary; BERT's drops them all."""


class Score(Protocol):
    """Log-probabilities (B,) in nats of the target, given tokens (B, T) int64."""

    def __call__(self, tokens: Tensor) -> Tensor: ...


@dataclass
class Prediction:
    """A prediction about a text.

    Parameters
    ----------
    kind, target: what is predicted ("next token", "label"), and its name.
    ids: (T,) int64, what the model reads; `pieces` are the parts of the text in them.
    blank, blank_text: the baseline token that replaces pieces, and how it is shown.
    embedding: what maps tokens to vectors.
    """

    kind: str
    target: str
    ids: Tensor
    pieces: list[Piece]
    blank: int
    blank_text: str
    embedding: nn.Embedding
    score: Score
    differentiable: bool = True
    """Whether the score depends on the tokens through `embedding` alone."""

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
        """Return the score of each row of tokens (float64); rows of one length are read together, nothing is padded."""
        found = np.zeros(len(rows))
        for length in {len(row) for row in rows}:
            alike = [index for index, row in enumerate(rows) if len(row) == length]
            size = max(1, TOKENS_AT_ONCE // length)
            for start in range(0, len(alike), size):
                part = alike[start : start + size]
                with torch.inference_mode():
                    found[part] = self.score(torch.stack([rows[index] for index in part])).double().cpu().numpy()
        return found


def predict(
    loaded: LoadedModel, text: str, target: str | None = None, device: torch.device | None = None
) -> Prediction:
    """Return the prediction to explain: of the next token, or of the text's label.

    Parameters
    ----------
    target: a continuation, as it would follow the text (a new word begins with a space), or a label; None: the
        likeliest one.

    Raises
    ------
    InputError: the text is empty or too long, the target is none, or the model is of a kind that is not explained.
    """
    if not text.strip():
        raise InputError("is empty", where="TEXT", fix="Pass a text to explain.")
    if target == "":
        raise InputError("is empty", where="--target", fix="Pass a continuation or a label, or leave it out.")
    if loaded.tokenizer is None:
        raise InputError("the model has no tokenizer.json", where="MODEL", fix="Restore it beside the weights.")
    loaded.model.to(device or torch.device("cpu"))
    if isinstance(loaded.model, SequenceClassifier) and not loaded.record["provenance"].get("pairs"):
        several = loaded.model.problem_type == "multi_label_classification"
        return _label((MultiLabelClassifier if several else TextClassifier).of(loaded), text, target)
    if isinstance(loaded.model, LanguageModel) and loaded.model.config.causal:
        return _next_token(loaded.model, loaded.tokenizer, text, target)
    raise InputError(
        "holds a model that finds spans, tags words, fills gaps or reads pairs, which is not explained yet",
        where="MODEL",
        fix="Pass a causal language model or a classifier of texts.",
    )


def _next_token(model: LanguageModel, tokenizer: Tokenizer, text: str, target: str | None) -> Prediction:
    ids, pieces = cut(tokenizer, text, first=len(tokenizer.prefix))
    read, size, device = [*tokenizer.prefix, *ids], model.config.vocab_size, model.head.device
    sought = [] if target is None else _behind(tokenizer, text, ids, target)
    if target is not None and (not sought or tokenizer.unknown_id in sought):
        raise InputError(f"{target!r} is nothing that this model can write", where="--target", fix="Pass another.")
    refuse_beyond(read, size, tokenizer, "TEXT")
    refuse_beyond(sought, size, tokenizer, "--target")
    _fits(len(read) + max(0, len(sought) - 1), model.config.context_length)
    head = torch.tensor(read, device=device)
    if target is None:
        with torch.inference_mode():
            logits = model.logits(model.model(head[None])[:, -1])
            never = suppressed_tokens(size, tokenizer, ends_of(tokenizer, model.generation.ends, size)).to(device)
            sought = [int(logits[0].masked_fill(never, float("-inf")).argmax())]
    wanted = torch.tensor(sought, device=device)

    def score(tokens: Tensor) -> Tensor:
        logprobs = model.logits(model.model(tokens)[:, -len(sought) :]).log_softmax(-1)  # (B, n, V)
        return logprobs.gather(-1, wanted.expand(len(tokens), -1)[..., None]).sum((1, 2))

    name = tokenizer.decode(sought, skip_special=False)
    whole, blank = torch.cat([head, wanted[:-1]]), _blank(tokenizer, model.config)
    return Prediction("next token", name, whole, pieces, *blank, model.model.embed_tokens, score)


def _behind(tokenizer: Tokenizer, text: str, ids: list[int], target: str) -> list[int]:
    """Return the ids of `target` as it stands behind `text`, whose ids are `ids`; by itself where the two merge."""
    whole = tokenizer.encode(text + target)
    return whole[len(ids) :] if whole[: len(ids)] == ids else tokenizer.encode(target)


def _label(classifier: BaseTextClassifier[Any], text: str, target: str | None) -> Prediction:
    model, tokenizer = classifier.model, classifier.tokenizer
    if target is not None and target not in model.labels:
        raise InputError(
            f"there is no label {target!r}", where="--target", fix=f"Choose one of: {', '.join(model.labels)}."
        )
    ids, pieces = cut(tokenizer, text, first=len(tokenizer.prefix))
    refuse_beyond(tokenizer.whole(ids), model.config.vocab_size, tokenizer, "TEXT")
    _fits(len(ids), classifier.max_tokens)
    read = torch.tensor(tokenizer.whole(ids)).to(model.model.embed_tokens.weight.device)

    def logprobs(tokens: Tensor) -> Tensor:
        lengths = torch.full((len(tokens),), tokens.shape[1], device=tokens.device)
        logits = model(tokens, lengths)
        if model.wide is not None:
            texts = [tokenizer.decode(row) for row in tokens.tolist()]
            logits = torch.from_numpy(model.wide.add(logits.double().cpu().numpy(), texts))
        several = classifier.problem_type == "multi_label_classification"
        return functional.logsigmoid(logits) if several else logits.log_softmax(-1)

    if target is None:
        with torch.inference_mode():
            target = model.labels[int(logprobs(read[None])[0].argmax())]
    index = model.labels.index(target)
    blank = _blank(tokenizer, model.config)
    embedding, differentiable = model.model.embed_tokens, model.wide is None
    return Prediction(
        "label", target, read, pieces, *blank, embedding, lambda tokens: logprobs(tokens)[:, index], differentiable
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
