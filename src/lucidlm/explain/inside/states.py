"""What a model's layers make of labelled texts and words: the states that probes and comparisons read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.core.progress import track
from lucidlm.explain.inside.trace import backbone_of, trace
from lucidlm.model.heads import LanguageModel, SequenceClassifier, TokenClassifier
from lucidlm.model.pooling import POOLINGS
from lucidlm.predict.batching import bucket_by_length, pad, tokens_per_batch
from lucidlm.predict.classifier import TextClassifier
from lucidlm.tokenize.embedding_rows import padding, refuse_beyond
from lucidlm.tokenize.tokenizer import Tokenizer

POOLED = {"first": "cls", "last": "lasttoken", "mean": "mean"}
"""The poolings of classifiers by the names that vectors of texts have."""


def text_states(loaded: LoadedModel, texts: Sequence[str], label: str) -> np.ndarray:
    """Return the states (layers + 1, texts, D) of texts before the first layer and after each, float32.

    A classifier's are pooled as its head reads them, other models' are means over the tokens. Texts longer than the
    context are cut. The last layer's state is the one behind the final norm, which the head reads.
    """
    model, tokenizer = loaded.model, loaded.require_tokenizer()
    pooling, most = "mean", model.config.context_length
    if isinstance(model, SequenceClassifier):
        classifier = TextClassifier.of(loaded)
        tokenizer, pooling, most = classifier.tokenizer, model.pooling, classifier.max_length
    room = most - len(tokenizer.prefix) - len(tokenizer.suffix)
    rows = [tokenizer.whole(ids[:room]) for ids in tokenizer.encode_batch(texts)]
    encoded = [np.asarray(row, dtype=np.int32) for row in rows]
    found = np.zeros((model.config.num_layers + 1, len(texts), model.config.embedding_dim), dtype=np.float32)
    for numbers, stream, within, tokens in _batches(loaded, tokenizer, encoded, label):
        if isinstance(model, SequenceClassifier) and pooling == "last" and model.pad_id is not None:
            within = _up_to_last(within & (tokens != model.pad_id))
        for layer, states in enumerate(stream):
            found[layer, numbers] = POOLINGS[POOLED[pooling]](states, within).cpu().numpy()
    return found


def word_states(loaded: LoadedModel, sentences: Sequence[Sequence[str]], label: str) -> list[np.ndarray]:
    """Return the states of each sentence's words, (layers + 1, words, D) float32: of a word's last token.

    Words behind the end of the context are left out.
    """
    model, tokenizer = loaded.model, loaded.require_tokenizer()
    room = model.config.context_length - len(tokenizer.prefix) - len(tokenizer.suffix)
    encoded, ends = [], []
    for encoding in tokenizer.encodings_of_words([_spaced(tokenizer, words) for words in sentences]):
        encoded.append(np.asarray(tokenizer.whole(encoding.ids[:room]), dtype=np.int32))
        last = {word: place for place, word in enumerate(encoding.word_ids[:room]) if word is not None}
        ends.append([len(tokenizer.prefix) + last[word] for word in sorted(last)])
    found: list[np.ndarray] = [np.zeros(0)] * len(sentences)
    for numbers, stream, *_ in _batches(loaded, tokenizer, encoded, label):
        for row, number in enumerate(numbers):
            found[number] = torch.stack([states[row, ends[number]] for states in stream]).float().cpu().numpy()
    return found


def _spaced(tokenizer: Tokenizer, words: Sequence[str]) -> list[str]:
    """Return words as they stand in a text: byte-level tokenizers spell the space with the word behind it."""
    return [word if index == 0 or not tokenizer.byte_level else f" {word}" for index, word in enumerate(words)]


def _batches(loaded: LoadedModel, tokenizer: Tokenizer, encoded: Sequence[np.ndarray], label: str):
    """Yield the indices of a batch, its streams (layers + 1, B, T, D), which tokens are a text's, and all tokens (B, T)."""
    model, backbone = loaded.model, backbone_of(loaded.model)
    if not isinstance(model, LanguageModel | SequenceClassifier | TokenClassifier):
        raise InputError("holds a model that finds spans", where=loaded.source, fix="Pass a model of another kind.")
    for ids in encoded:
        refuse_beyond(ids.tolist(), model.config.vocab_size, tokenizer, "the data")
    device, fill = backbone.embed_tokens.weight.device, padding(tokenizer, model.config.vocab_size)
    parts = list(bucket_by_length(encoded, tokens_per_batch(model, max(map(len, encoded)))))
    for numbers in track(parts, label, len(parts), "batches"):
        tokens, lengths = (one.to(device) for one in pad([encoded[number] for number in numbers], fill))
        within = torch.arange(tokens.shape[1], device=device) < lengths[:, None]
        with trace(model, ["input", "residual"]) as found:
            last = backbone(tokens, mask=None if model.config.causal else within[:, None])
        yield numbers, _streams(found.stacked("residual"), found["input", 0], last), within, tokens


def _up_to_last(chosen: Tensor) -> Tensor:
    """Return which positions (B, T) are not behind the last of those chosen: from there a classifier reads the label."""
    places = torch.arange(chosen.shape[1], device=chosen.device)
    return places <= (places * chosen).amax(1, keepdim=True)


def _streams(residual: Tensor, start: Tensor, last: Tensor) -> Tensor:
    """Return the stream before the first layer, after each but the last, and behind the final norm."""
    return torch.stack([start, *residual[:-1], last])
