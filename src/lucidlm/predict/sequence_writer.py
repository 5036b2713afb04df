"""A causal language model that writes answers to a task's prompts: translations, summaries, replies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lucidlm.core.errors import InputError
from lucidlm.core.progress import track
from lucidlm.data.examples.records import GeneratedText
from lucidlm.inference.beam import beam_search
from lucidlm.inference.decode import generate
from lucidlm.inference.end_of_text import ends_of
from lucidlm.inference.sampler import SamplingConfig, suppressed_tokens
from lucidlm.model.attention_backends import causal_mask
from lucidlm.model.heads import LanguageModel
from lucidlm.predict.batching import bucket_by_length, pad
from lucidlm.tokenize.embedding_rows import padding, refuse_beyond
from lucidlm.tokenize.prompts import TokenizedExample
from lucidlm.tokenize.tokenizer import CONTROL, Tokenizer

TOKENS_PER_BATCH = 8192
"""Tokens of prompts, padding and beams included, that are continued together."""

BEYOND = 10
"""Tokens that are added to a prompt's length before it is multiplied, so that short prompts have room too."""

BEAMS = 4
"""On 200 sentences of Multi30k and a model of 4.8 M weights: BLEU 57.4, greedily 55.1, for twice the time."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long an answer may get: a multiple of its prompt's length, and never more than `longest` tokens."""

    multiple: float
    longest: int

    @classmethod
    def learnt(cls, tokenized: Sequence[TokenizedExample]) -> Lengths:
        """Take both from training examples: nearly all answers there are within the multiple, all within `longest`."""
        answers = np.array([max(1, len(one.ids) - one.prompt) for one in tokenized])
        prompts = np.array([one.prompt for one in tokenized])
        return cls(float(np.quantile(answers / (prompts + BEYOND), 0.999)), int(1.5 * answers.max()) + 1)

    def limit(self, prompt: int) -> int:
        """Return the most tokens that may answer a prompt of so many."""
        return max(1, min(math.ceil(self.multiple * (prompt + BEYOND)), self.longest))


class SequenceWriter:
    """A causal language model with its tokenizer and the prompt that it was tuned with.

    Parameters
    ----------
    tokenize: turns examples into prompts and, where they have one, the reference answer.
    max_tokens: the most tokens that the model reads at once.
    end: the id that ends an answer, as do those that end any text of the model's.
    lengths: how long answers may get.
    bidirectional: whether a prompt's tokens see each other; see `PromptBatch`.
    beams: the width of the beam search; 1 is greedy.
    sampling: sample the answers instead, and end each at its reference's length.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        tokenize: Callable[[Sequence[Any]], list[TokenizedExample]],
        *,
        max_tokens: int,
        end: int,
        lengths: Lengths,
        bidirectional: bool = False,
        beams: int = BEAMS,
        sampling: SamplingConfig | None = None,
    ) -> None:
        if max_tokens > model.config.context_length:
            raise InputError(
                f"{max_tokens:,} tokens are more than the model's context of {model.config.context_length:,}",
                where="max_length",
                fix=f"Pass at most {model.config.context_length}.",
            )
        self.model, self.tokenizer, self.max_tokens, self._tokenize = model, tokenizer, max_tokens, tokenize
        self.ends = ends_of(tokenizer, [*model.generation.ends, end], model.config.vocab_size)
        self.lengths = lengths
        self.bidirectional, self.beams, self.sampling = bidirectional, beams, sampling

    def tokenize(self, examples: Sequence[Any]) -> list[TokenizedExample]:
        """Turn examples into what the model reads and writes.

        Raises
        ------
        InputError: one holds a token that the model has no row for.
        """
        tokenized = self._tokenize(examples)
        for example, one in zip(examples, tokenized, strict=True):
            refuse_beyond(one.ids, self.model.config.vocab_size, self.tokenizer, example.where)
        return tokenized

    def predict(self, examples: Sequence[Any], label: str | None = None) -> list[GeneratedText]:
        """Answer each example, and measure what its reference costs, if it has one."""
        was_training = self.model.training
        self.model.eval()
        try:
            tokenized = self.tokenize(examples)
            nats = self.costs(tokenized)
            texts = self.write(tokenized, label)
        finally:
            self.model.train(was_training)
        counts = [int(one.counted.sum()) for one in tokenized]
        return [GeneratedText(*row) for row in zip(texts, nats, counts, strict=True)]

    def write(self, tokenized: Sequence[TokenizedExample], label: str | None = None) -> list[str]:
        """Return what the model writes for each prompt; shows progress if given a `label` for it."""
        prompts = [one.ids[: one.prompt] for one in tokenized]
        widest = self.beams if self.sampling is None else 1
        batches: Iterable[np.ndarray] = bucket_by_length(prompts, TOKENS_PER_BATCH // widest)
        if label is not None:
            batches = track(batches, label, unit="batches")
        texts = [""] * len(tokenized)
        for rows in batches:
            for row, text in zip(rows, self._continue([tokenized[row] for row in rows]), strict=True):
                texts[row] = text
        return texts

    def _continue(self, tokenized: Sequence[TokenizedExample]) -> list[str]:
        prompts = [one.ids[: one.prompt].tolist() for one in tokenized]
        max_tokens = self.max_tokens + 1  # the last token to be chosen is never read
        if self.sampling is not None:
            limits = [min(max_tokens, len(one.ids)) - one.prompt for one in tokenized]
            config = self.sampling.changed(length=min(self.sampling.length, max(1, *limits)))
            found = generate(self.model, self.tokenizer, prompts, config)
            kept = [one.tokens[:limit] for one, limit in zip(found, limits, strict=True)]
            return [self.tokenizer.decode(token for token in tokens if token not in self.ends) for tokens in kept]
        limits = [min(self.lengths.limit(len(prompt)), max_tokens - len(prompt)) for prompt in prompts]
        prefixes = [one.prefix for one in tokenized] if self.bidirectional else None
        suppressed = self._forbidden()
        best = beam_search(
            self.model, prompts, limits, ends=self.ends, suppressed=suppressed, beams=self.beams, prefixes=prefixes
        )
        return [self.tokenizer.decode(one.tokens).strip() for one in best]

    def _forbidden(self) -> Tensor:
        """Return (V,) bool, the tokens that no answer holds: all control tokens but those that end it."""
        size = self.model.config.vocab_size
        suppressed = suppressed_tokens(size, self.tokenizer, self.ends).to(self.model.head.device)
        for token in (self.tokenizer.core.token_to_id(name) for name in CONTROL):
            if token is not None and token < size:
                suppressed[token] = token not in self.ends
        return suppressed

    @torch.inference_mode()
    def costs(self, tokenized: Sequence[TokenizedExample]) -> list[float]:
        """Return what the tokens that count cost the model, in nats, given all before them (teacher forcing)."""
        windows, owners = [], []
        for owner, one in enumerate(tokenized):
            for start in range(0, len(one.ids) - 1, self.max_tokens) if one.counted.any() else ():
                # Windows overlap by a token, which ends one and begins the next: each is predicted once.
                windows.append(one.window(start, self.max_tokens + 1))
                owners.append((owner, one.prefix if self.bidirectional and start == 0 else 0))
        totals, filler = [0.0] * len(tokenized), padding(self.tokenizer, self.model.config.vocab_size)
        for rows in bucket_by_length([window.ids for window in windows], TOKENS_PER_BATCH):
            inputs = teacher_forcing([windows[row] for row in rows], filler)
            prefixes = torch.tensor([owners[row][1] for row in rows])
            inputs = inputs.to(self.model.head.device)
            mask = (
                prefix_mask(prefixes.to(inputs.tokens.device), inputs.tokens.shape[1]) if self.bidirectional else None
            )
            hidden = self.model.model(inputs.tokens, mask=mask).flatten(0, 1).index_select(0, inputs.places)
            costs = self.model.token_nll(hidden, inputs.targets).double().cpu()
            of = (inputs.places // inputs.tokens.shape[1]).cpu()
            for row, cost in zip(rows, torch.zeros(len(rows)).double().index_add_(0, of, costs).tolist(), strict=True):
                totals[owners[row][0]] += cost
        return totals


@dataclass(slots=True)
class TeacherForcing:
    """What the model reads, (B, T) int64, and of the B * T states the places (N,) that predict `targets` (N,)."""

    tokens: Tensor
    places: Tensor
    targets: Tensor
    read: int
    """How many of the tokens are no padding."""

    def to(self, device: torch.device) -> TeacherForcing:
        """Move it to `device`."""
        return TeacherForcing(self.tokens.to(device), self.places.to(device), self.targets.to(device), self.read)


def teacher_forcing(tokenized: Sequence[TokenizedExample], pad_id: int) -> TeacherForcing:
    """Put sequences of two tokens or more into one batch, padded on the right."""
    tokens, lengths = pad([one.ids[:-1] for one in tokenized], pad_id)
    width = tokens.shape[1]
    places = np.concatenate([row * width + np.flatnonzero(one.counted[1:]) for row, one in enumerate(tokenized)])
    targets = np.concatenate([one.ids[1:][one.counted[1:]] for one in tokenized]).astype(np.int64)
    return TeacherForcing(tokens, torch.from_numpy(places), torch.from_numpy(targets), int(lengths.sum()))


def prefix_mask(prefixes: Tensor, length: int) -> Tensor:
    """Return (B, T, T) bool: each token sees those before it, and the `prefixes` (B,) first ones see each other."""
    columns = torch.arange(length, device=prefixes.device)
    return causal_mask(length, device=prefixes.device) | (columns < prefixes[:, None])[:, None]
