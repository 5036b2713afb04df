"""How likely a causal language model finds texts: what choosing among answers and perplexity are made of.

What several texts have in common at the beginning is read once (`lucidlm.inference.prefix_tree`); of the positions read,
only those whose next token is asked for go through the output head, the widest product of a small model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lucidlm.core.errors import InputError
from lucidlm.core.matmul import fast_matmul
from lucidlm.core.progress import ProgressBar
from lucidlm.inference.kv_cache import KeyValueCache
from lucidlm.inference.prefix_tree import Tree, merge
from lucidlm.model.heads import LanguageModel
from lucidlm.model.loss import CHUNK

TOKENS_PER_BATCH = 4096
"""How many tokens, padding included, are read at once."""

TOKENS_HELD = 4 * TOKENS_PER_BATCH
"""How many tokens of a batch are held in all, those that were read before included."""

SCORES_PER_BATCH = 2**24
"""Most attention scores of one layer at once: 64 MB in fp32."""

COMMON = 64
"""Tokens at the beginning of a whole batch (a description, worked examples) from which on they are read only once."""

Request = tuple[Sequence[int], Sequence[int]]
"""A context, at least one token, and its continuation."""


class Likelihood(NamedTuple):
    """The natural logarithm of a continuation's probability, and whether greedy choice would have written it."""

    logprob: float
    greedy: bool


class Scorer:
    """Scores continuations with a causal model; what else is scored with one changes rounding only."""

    def __init__(self, model: LanguageModel) -> None:
        """Score with `model`, where it is.

        Raises
        ------
        InputError: it is not causal.
        """
        if not model.config.causal:
            raise InputError("a masked model gives no probability to a text", fix="Use a causal language model.")
        self.model, self.context = model, model.config.context_length

    def score(self, requests: Sequence[Request], label: str | None = None) -> list[Likelihood]:
        """Return how likely each continuation is after its context, in order; shows progress if given a `label` for it.

        A context is cut at its beginning where both together are longer than the model's context and one.

        Raises
        ------
        InputError: a continuation is empty or longer than the model's context, a context is empty, or the model has no
            row for a token.
        """
        texts, targets = [], []
        for number, (context, continuation) in enumerate(requests):
            if not context or not 0 < len(continuation) <= self.context:
                raise InputError(
                    f"a context of {len(context):,} tokens and a continuation of {len(continuation):,}; the model "
                    f"scores 1 to {self.context:,} after 1 or more",
                    where=f"request {number + 1}",
                )
            whole = np.asarray([*context, *continuation], dtype=np.int64)[-self.context - 1 :]
            if whole.max() >= (size := self.model.config.vocab_size):
                raise InputError(
                    f"holds the token number {whole.max():,}, and the model has rows for {size:,} tokens only",
                    where=f"request {number + 1}",
                    fix="Leave it out, or use the tokenizer that the model was trained with.",
                )
            texts.append(whole[:-1])
            targets.append(whole[-len(continuation) :])
        logprobs, greedy = np.zeros(len(texts)), np.ones(len(texts), dtype=bool)
        trees = merge(texts, self.model.config.embedding_dim)
        was_training = self.model.training
        self.model.eval()
        progress = None if label is None else ProgressBar(label, sum(len(tree.tokens) for tree in trees), "tokens")
        with torch.inference_mode(), fast_matmul(self.model.head.device), progress or nullcontext():
            for batch in _batches(trees, self.model.config.num_heads):
                asked = _Asked(batch, targets)
                found, chosen = self._logprobs(self._read(batch, asked.rows), asked)
                np.add.at(logprobs, asked.owners, found)
                np.logical_and.at(greedy, asked.owners, chosen)
                if progress is not None:
                    progress.advance(sum(len(tree.tokens) for tree in batch.trees))
        self.model.train(was_training)
        return [Likelihood(*pair) for pair in zip(logprobs.tolist(), greedy.tolist(), strict=True)]

    def score_texts(self, texts: Sequence[Sequence[int]], prefix: int, label: str | None = None) -> list[float]:
        """Return the log-probability of each of `texts` (token ids), whole, after the token `prefix`.

        A text longer than the model's context is read in windows that are full, the last one too, and score each token
        once: the way of lm-evaluation-harness.
        """
        windows = [list(rolling(ids, prefix, self.context)) for ids in texts]
        found = iter(self.score([window for of_text in windows for window in of_text], label))
        return [sum(next(found).logprob for _ in of_text) for of_text in windows]

    def _read(self, batch: _Batch, rows: np.ndarray) -> Tensor:
        """Return the hidden states (N, D) of `rows` int64, places in the batch padded to its longest tree."""
        device, width = self.model.head.device, batch.width
        tokens, positions = (torch.zeros(len(batch.trees), width, dtype=torch.int64) for _ in range(2))
        forks = batch.trees[0].forks
        # What pads the right sees itself, as a softmax has to see something; nothing else sees it.
        mask = torch.eye(width, dtype=torch.bool).repeat(len(batch.trees), 1, 1) if forks else None
        for row, tree in enumerate(batch.trees):
            size = len(tree.tokens)
            tokens[row, :size], positions[row, :size] = torch.tensor(tree.tokens), torch.tensor(tree.depths)
            if mask is not None:
                mask[row, :size, :size] = torch.from_numpy(tree.mask())
        tokens, caches = tokens.to(device), None
        past = min(batch.common, int((rows % width).min()))
        past = past if past >= COMMON else 0
        if past:
            caches = [KeyValueCache() for _ in range(self.model.config.num_layers)]
            self.model.model(tokens[:1, :past], caches=caches)
            for cache in caches:
                cache.keep(torch.zeros(len(batch.trees), dtype=torch.int64, device=device))
        hidden = self.model.model(
            tokens[:, past:],
            positions=positions[:, past:].to(device),
            mask=None if mask is None else mask[:, past:].to(device),
            caches=caches,
        )
        return hidden[torch.from_numpy(rows // width), torch.from_numpy(rows % width - past)]

    def _logprobs(self, hidden: Tensor, asked: _Asked) -> tuple[np.ndarray, np.ndarray]:
        """Return the log-probability (fp64) of each asked token, and whether it is the likeliest."""
        size = max(1, CHUNK // self.model.config.vocab_size)
        found, chosen = [], []
        for start in range(0, len(hidden), size):
            logits = self.model.logits(hidden[start : start + size]).float()  # (n, V)
            first, last = np.searchsorted(asked.states, [start, start + size])
            states = torch.from_numpy(asked.states[first:last] - start).to(logits.device)
            targets = torch.from_numpy(asked.targets[first:last]).to(logits.device)
            found.append((logits[states, targets] - logits.logsumexp(-1)[states]).double().cpu())
            chosen.append((logits.argmax(-1)[states] == targets).cpu())
        return torch.cat(found).numpy(), torch.cat(chosen).numpy()


class _Asked:
    """The tokens whose probability is asked for in a batch, sorted by the place they are read at.

    Parameters
    ----------
    rows: int64 (N,), the places of the padded batch where tokens are asked for, each once.
    states, targets, owners: int64 (M,), for each asked token the index of its place in `rows`, itself, its request.
    """

    def __init__(self, batch: _Batch, targets: Sequence[np.ndarray]) -> None:
        width = batch.width
        places, tokens, owners = [], [], []
        for row, tree in enumerate(batch.trees):
            for number, path in tree.texts:
                places.append(row * width + path[-len(targets[number]) :])
                tokens.append(targets[number])
                owners.append(np.full(len(targets[number]), number))
        rows, states = np.unique(np.concatenate(places), return_inverse=True)
        order = np.argsort(states, kind="stable")
        self.rows = rows
        self.states = states[order]
        self.targets, self.owners = np.concatenate(tokens)[order], np.concatenate(owners)[order]


def rolling(ids: Sequence[int], prefix: int, length: int) -> Iterator[Request]:
    """Yield the windows in which a text is scored: each reads up to `length` tokens, and each token is scored once."""
    text = [prefix, *ids]
    for start in range(0, len(ids), length):
        end = min(start + length, len(ids))
        yield text[max(0, end - length) : start + 1], text[start + 1 : end + 1]


@dataclass(frozen=True)
class _Batch:
    """Trees that are read together, and how many tokens all of them begin with, if those are worth a pass of their own."""

    trees: list[Tree]
    common: int

    @property
    def width(self) -> int:
        return max(len(tree.tokens) for tree in self.trees)


def _batches(trees: Sequence[Tree], heads: int) -> Iterator[_Batch]:
    """Yield trees of one beginning together, or of none in particular, those that have forks apart, by their length."""
    families: dict[tuple[int, ...], list[Tree]] = {}
    for tree in trees:
        families.setdefault(tuple(tree.tokens[: min(COMMON, tree.trunk)]), []).append(tree)
    others = [tree for family in families.values() if len(family) == 1 or family[0].trunk < COMMON for tree in family]
    alike = [family for family in families.values() if len(family) > 1 and family[0].trunk >= COMMON]
    for family in [others, *alike]:
        common = 0 if family is others else _common(family)
        for forks in (False, True):
            batch: list[Tree] = []
            for tree in sorted((tree for tree in family if tree.forks == forks), key=lambda tree: len(tree.tokens)):
                width = len(tree.tokens)
                pairs = (len(batch) + 1) * width * (width - common)
                fits = pairs * heads <= SCORES_PER_BATCH and (len(batch) + 1) * (width - common) <= TOKENS_PER_BATCH
                if batch and not (fits and (len(batch) + 1) * width <= TOKENS_HELD):
                    yield _Batch(batch, common if len(batch) > 1 else 0)
                    batch = []
                batch.append(tree)
            if batch:
                yield _Batch(batch, common if len(batch) > 1 else 0)


def _common(family: Sequence[Tree]) -> int:
    """Return how many tokens all trees begin with; the last one of none is among them, as it may be asked about."""
    most = min(min(tree.trunk, len(tree.tokens) - 1) for tree in family)
    rows = np.array([tree.tokens[:most] for tree in family])
    differs = np.flatnonzero((rows != rows[0]).any(0))
    return int(differs[0]) if len(differs) else most
