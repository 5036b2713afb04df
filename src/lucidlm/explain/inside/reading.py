"""A text as a model reads it, and what it answers: what all views of a text begin with.

Causal models are read as they generate (the answer is the next token), masked ones with their mask token spelt out in the
text (the answer is the token in its place), classifiers as they classify (the answer is a label).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.explain.inside.trace import Edit, Part, Site, Trace, trace
from lucidlm.explain.pieces import cut
from lucidlm.model.heads import LanguageModel, SequenceClassifier
from lucidlm.predict.classifier import TextClassifier
from lucidlm.tokenize.embedding_rows import refuse_beyond
from lucidlm.tokenize.tokenizer import Tokenizer

TOKENS_AT_ONCE = 4096
"""Tokens that are read at once where many variants of a text are."""
ROWS_AT_ONCE = 64
"""Variants that are read at once: with many tokens in a vocabulary their logits take more memory than all else."""

REST = "⋯"
"""The label of a token that continues the character of the one before."""


@dataclass(frozen=True)
class Reading:
    """A text as a model reads it.

    Parameters
    ----------
    kind: which of the models that can be looked into it is.
    tokens, labels: (T,) int64, and what each is called.
    place: the position whose state the answer is read off; None: of all, or of none as no mask stands in the text.
    where: what messages call the text.
    """

    model: LanguageModel | SequenceClassifier
    tokenizer: Tokenizer
    kind: Literal["causal", "masked", "classifier"]
    text: str
    tokens: Tensor
    labels: tuple[str, ...]
    place: int | None
    where: str = "text"

    def outputs(self, tokens: Tensor) -> Tensor:
        """Return the logits (B, V or labels) of the answer to `tokens` (B, T) int64.

        Raises
        ------
        InputError: a masked model has nothing to answer.
        """
        if isinstance(self.model, SequenceClassifier):
            return self.model(tokens, tokens.new_full((len(tokens),), tokens.shape[1]))
        return self.model.logits(self.model.model(tokens)[:, self.asked()])

    @property
    def notes(self) -> tuple[str, ...]:
        """What has to be said of every view of this model, in sentences."""
        if isinstance(self.model, SequenceClassifier) and self.model.wide is not None:
            return ("The n-grams that this model counts beside its Transformer are not looked into.",)
        return ()

    def asked(self) -> int:
        """Return the position whose state the answer is read off.

        Raises
        ------
        InputError: a masked model is asked nothing.
        """
        if self.place is None:
            mask = self.tokenizer.core.id_to_token(self.tokenizer.mask_id)
            raise InputError(
                "asks a masked model nothing", where=self.where, fix=f"Put {mask} where a word is to be filled in."
            )
        return self.place

    def record(
        self, parts: Sequence[Part], edits: Sequence[tuple[Site, Edit]] = (), tokens: Tensor | None = None
    ) -> tuple[Trace, Tensor]:
        """Read the text, or other `tokens` (B, T); return what was recorded, and the answer's logits (B, V or labels).

        The logits have no columns where a masked model is asked nothing.
        """
        tokens = self.tokens[None] if tokens is None else tokens
        with trace(self.model, parts, edits) as found:
            if self.place is None and isinstance(self.model, LanguageModel):
                logits = self.model.model(tokens)[:, 0, :0]
            else:
                logits = self.outputs(tokens)
        return found, logits.double()

    def variants(
        self,
        rows: int,
        edits: Callable[[Tensor], Sequence[tuple[Site, Edit]]],
        tokens: Tensor,
        of: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Return the logits (rows, V or labels) of `tokens` (T,) with other edits in each row, several read at a time.

        Parameters
        ----------
        edits: what is edited in a batch of the rows with these indices (B,).
        of: what is made of a batch's logits (B, V or labels), so that those of all rows are never held; None: nothing.
        """
        size = max(1, min(TOKENS_AT_ONCE // len(tokens), ROWS_AT_ONCE))
        parts = []
        for start in range(0, rows, size):
            numbers = torch.arange(start, min(start + size, rows), device=tokens.device)
            logits = self.record((), edits(numbers), tokens.expand(len(numbers), -1))[1]
            parts.append(logits if of is None else of(logits))
        return torch.cat(parts)

    def name(self, index: int) -> str:
        """Return what an answer is called: a label, or the text of a token."""
        if isinstance(self.model, SequenceClassifier):
            return self.model.labels[index]
        return token_name(self.tokenizer, index)

    def answer(self, wanted: str | None, logits: Tensor, where: str = "--target") -> int:
        """Return the index of the answer that is called `wanted`; None: of the likeliest by `logits` (V or labels,).

        Raises
        ------
        InputError: there is no such label, or the text is no single token.
        """
        if wanted == "":
            raise InputError("is empty", where=where, fix="Pass one token or a label, or leave it out.")
        if self.kind == "masked":
            self.asked()
        if wanted is None:
            return int(logits.argmax())
        if isinstance(self.model, SequenceClassifier):
            if wanted not in self.model.labels:
                fix = f"Choose one of: {', '.join(self.model.labels)}."
                raise InputError(f"there is no label {wanted!r}", where=where, fix=fix)
            return self.model.labels.index(wanted)
        ids = self.tokenizer.encode(wanted)
        if self.kind == "causal":
            before, whole = (self.tokenizer.encode(text) for text in (self.text, self.text + wanted))
            ids = whole[len(before) :] if whole[: len(before)] == before else ids
        if len(ids) == 1 and ids[0] != self.tokenizer.unknown_id and ids[0] < self.model.config.vocab_size:
            return ids[0]
        what = f"{wanted!r} is no token of this model"
        if len(ids) > 1:
            first = token_name(self.tokenizer, ids[0])
            what = f"{wanted!r} is {len(ids)} tokens of this model, one is needed; the first is {first!r}"
        raise InputError(what, where=where, fix="Pass one token.")


def token_name(tokenizer: Tokenizer, index: int) -> str:
    """Return the text of a token, or its name in the vocabulary where it has no text of its own."""
    text = tokenizer.decode([index], skip_special=False)
    return text if text and "�" not in text else tokenizer.core.id_to_token(index) or f"#{index}"


def inspectable(loaded: LoadedModel) -> bool:
    """Return whether a model is of a kind that `read` takes."""
    if isinstance(loaded.model, SequenceClassifier):
        return _is_looked_into(loaded, loaded.model)
    return isinstance(loaded.model, LanguageModel)


def read(loaded: LoadedModel, text: str, *, where: str = "text") -> Reading:
    """Return a text as the model reads it.

    Raises
    ------
    InputError: the text is empty or longer than the context, or the model is of a kind that cannot be looked into.
    """
    if not text.strip():
        raise InputError("is empty", where=where, fix="Pass a text.")
    tokenizer = loaded.require_tokenizer()
    model = loaded.model
    if isinstance(model, SequenceClassifier) and _is_looked_into(loaded, model):
        return _classified(TextClassifier.of(loaded), text, where)
    if isinstance(model, LanguageModel):
        return _causal(model, tokenizer, text, where) if model.config.causal else _masked(model, tokenizer, text, where)
    raise InputError(
        "holds a model that finds spans, tags words, reads pairs, or gives texts numbers or several labels, which cannot be "
        "looked into yet",
        where=loaded.source or "MODEL",
        fix="Pass a language model, or a classifier that gives a text one label.",
    )


def _is_looked_into(loaded: LoadedModel, model: SequenceClassifier) -> bool:
    """Return whether a classifier gives single texts one label each."""
    return model.problem_type == "single_label_classification" and not loaded.record["provenance"].get("pairs")


def _causal(model: LanguageModel, tokenizer: Tokenizer, text: str, where: str) -> Reading:
    ids, labels = _named(tokenizer, text)
    tokens = [*tokenizer.prefix, *ids]
    names = (*_special(tokenizer, tokenizer.prefix), *labels)
    place = len(tokens) - 1
    return Reading(model, tokenizer, "causal", text, _fitting(tokens, model, tokenizer, where), names, place, where)


def _masked(model: LanguageModel, tokenizer: Tokenizer, text: str, where: str) -> Reading:
    mask = tokenizer.find("mask_token")
    spelt = None if mask is None else tokenizer.core.id_to_token(mask)
    stretches = text.split(spelt) if spelt else [text]
    ids, labels, masks = [*tokenizer.prefix], [*_special(tokenizer, tokenizer.prefix)], []
    for number, stretch in enumerate(stretches):
        if number:
            assert mask is not None
            assert spelt is not None
            masks.append(len(ids))
            ids.append(mask)
            labels.append(spelt)
        found, names = _named(tokenizer, stretch)
        ids += found
        labels += names
    if len(masks) > 1:
        raise InputError(f"has {len(masks)} masks", where=where, fix=f"Leave one {spelt}.")
    ids += tokenizer.suffix
    labels += _special(tokenizer, tokenizer.suffix)
    tokens = _fitting(ids, model, tokenizer, where)
    return Reading(model, tokenizer, "masked", text, tokens, tuple(labels), masks[0] if masks else None, where)


def _classified(classifier: TextClassifier, text: str, where: str) -> Reading:
    model, tokenizer = classifier.model, classifier.tokenizer
    ids, labels = _named(tokenizer, text)
    whole = tokenizer.whole(ids)
    names = (*_special(tokenizer, tokenizer.prefix), *labels, *_special(tokenizer, tokenizer.suffix))
    tokens = _fitting(whole, model, tokenizer, where, classifier.max_length)
    last = [place for place, index in enumerate(whole) if index != model.pad_id]
    place = {"first": 0, "last": last[-1] if last else 0, "mean": None}[model.pooling]
    return Reading(model, tokenizer, "classifier", text, tokens, names, place, where)


def _named(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[str]]:
    """Return the token ids of a text and the part of it that each is."""
    ids, pieces = cut(tokenizer, text)
    return ids, [piece.text if index == 0 else REST for piece in pieces for index in range(len(piece.places))]


def _special(tokenizer: Tokenizer, ids: Sequence[int]) -> tuple[str, ...]:
    return tuple(tokenizer.core.id_to_token(index) or f"#{index}" for index in ids)


def _fitting(
    ids: Sequence[int],
    model: LanguageModel | SequenceClassifier,
    tokenizer: Tokenizer,
    where: str,
    most: int | None = None,
) -> Tensor:
    refuse_beyond(ids, model.config.vocab_size, tokenizer, where)
    most = model.config.context_length if most is None else most
    if len(ids) > most:
        raise InputError(
            f"has {len(ids):,} tokens, the model reads {most:,} at once", where=where, fix="Look at a part of it."
        )
    return torch.tensor(list(ids), device=model.model.embed_tokens.weight.device)
