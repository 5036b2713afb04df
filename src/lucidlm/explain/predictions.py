"""What is explained: a target's log-probability, or by how much it passes another's, as a function of what a model reads.

A causal model reads the text as in generation: after the tokenizer's beginning-of-text tokens, if it has any. Without
them the first piece is also the attention sink (Xiao et al. 2023, arXiv:2309.17453), which adds to its attribution.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.explain.answers import predict_answer
from lucidlm.explain.pieces import Piece, Unit, cut, joined_by
from lucidlm.explain.prediction import Prediction, blank_of, mark_of, require_fit, same_as_target
from lucidlm.inference.end_of_text import ends_of
from lucidlm.inference.sampler import suppressed_tokens
from lucidlm.model.heads import LanguageModel, Model, SequenceClassifier, SpanExtractor
from lucidlm.predict.classifier import BaseTextClassifier, TextClassifier
from lucidlm.predict.multi_label_classifier import MultiLabelClassifier
from lucidlm.predict.span_reader import SpanReader
from lucidlm.tokenize.embedding_rows import refuse_beyond
from lucidlm.tokenize.tokenizer import Tokenizer


def predict(
    loaded: LoadedModel,
    text: str,
    target: str | None = None,
    *,
    context: str | None = None,
    rather_than: str | None = None,
    by: Unit = "token",
) -> Prediction:
    """Return the prediction to explain: of the next token, of the text's label, or of the answer to a question.

    Parameters
    ----------
    target: a continuation, as it would follow the text (a new word begins with a space), a label, or an answer as it
        stands in `context`, an empty one being that there is none; None: the one that the model gives.
    context: the passage that a question is about, for models that find answers.
    rather_than: another one, which the target is compared with: why the one rather than the other (Yin & Neubig 2022,
        arXiv:2202.10419).
    by: what the pieces are.

    Raises
    ------
    InputError: the text is empty or too long, the target is none, or the model is of a kind that is not explained.
    """
    if not text.strip():
        raise InputError("is empty", where="TEXT", fix="Pass a text to explain.")
    reads = isinstance(loaded.model, SpanExtractor)
    for name, given in ("--target", target), ("--rather-than", rather_than):
        if given == "" and not reads:
            raise InputError("is empty", where=name, fix="Pass a continuation or a label, or leave it out.")
    if loaded.tokenizer is None:
        raise InputError("the model has no tokenizer.json", where="MODEL", fix="Restore it beside the weights.")
    if not explainable(loaded):
        raise InputError(
            "holds a model that tags words, fills gaps or reads pairs, which is not explained yet",
            where="MODEL",
            fix="Pass a causal language model, a classifier of texts, or a model that finds answers.",
        )
    if context is not None and not reads:
        raise InputError("is for models that find answers in a passage", where="--context", fix="Leave it out.")
    if isinstance(loaded.model, SpanExtractor):
        if context is None or not context.strip():
            raise InputError(
                "is missing" if context is None else "is empty",
                where="--context",
                fix="Pass the passage in which this model is to find the answer to TEXT.",
            )
        return predict_answer(SpanReader.of(loaded), text, context, target, rather_than, by)
    if isinstance(loaded.model, SequenceClassifier):
        several = loaded.model.problem_type == "multi_label_classification"
        found = _label((MultiLabelClassifier if several else TextClassifier).of(loaded), text, target, rather_than)
    else:
        model, tokenizer = loaded.causal_lm()
        found = _next_token(model, tokenizer, text, target, rather_than)
    return replace(found, pieces=joined_by(by, text, found.pieces))


def explainable(loaded: LoadedModel) -> bool:
    """Return whether a model is of a kind that is explained: it continues texts, gives them labels, or finds answers."""
    model: Model = loaded.model
    if isinstance(model, LanguageModel):
        return model.config.causal
    if isinstance(model, SequenceClassifier):
        return not loaded.record["provenance"].get("pairs")
    return isinstance(model, SpanExtractor)


def _next_token(
    model: LanguageModel, tokenizer: Tokenizer, text: str, target: str | None, rather_than: str | None
) -> Prediction:
    ids, pieces = cut(tokenizer, text, first=len(tokenizer.prefix))
    read, size, device = [*tokenizer.prefix, *ids], model.config.vocab_size, model.head.device
    refuse_beyond(read, size, tokenizer, "TEXT")
    require_fit(len(read), model.config.context_length)
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
        raise same_as_target(tokenizer.decode(sought, skip_special=False))
    for continuation in sought, other or []:
        require_fit(len(read) + max(0, len(continuation) - 1), model.config.context_length)
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

    def score(tokens: Tensor, places: Tensor | None = None) -> Tensor:
        logprobs = logits_of(sought, tokens).log_softmax(-1)
        if other is None:
            return of(sought, logprobs)
        return of(sought, logprobs) - of(other, logprobs if alike else logits_of(other, tokens).log_softmax(-1))

    def margin(tokens: Tensor, places: Tensor | None = None) -> Tensor:
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
        *blank_of(tokenizer, model.config),
        mark_of(tokenizer, model.config),
        model,
        score,
        margin,
        slice(len(head) - 1, None),
        len(sought),
    )


def _sought(tokenizer: Tokenizer, text: str, ids: list[int], target: str, size: int, where: str) -> list[int]:
    found = _behind(tokenizer, text, ids, target)
    if not found or tokenizer.unknown_id in found:
        raise InputError(f"{target!r} is nothing that this model can write", where=where, fix="Pass another.")
    refuse_beyond(found, size, tokenizer, where)
    return found


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
    require_fit(len(ids), classifier.max_tokens)
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
        raise same_as_target(target)
    index = model.labels.index(target)
    other = None if rather_than is None else model.labels.index(rather_than)

    def score(tokens: Tensor, places: Tensor | None = None) -> Tensor:
        found = logprobs(tokens)
        return found[:, index] if other is None else found[:, index] - found[:, other]

    def margin(tokens: Tensor, places: Tensor | None = None) -> Tensor:
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
        *blank_of(tokenizer, model.config),
        mark_of(tokenizer, model.config),
        model,
        score,
        margin,
        {"first": [0], "last": slice(len(read) - 1, None), "mean": slice(None)}[model.pooling],
        differentiable=model.wide is None,
    )
