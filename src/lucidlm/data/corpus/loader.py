"""From shards to batches: which tokens are in which row of which step, as a pure function.

- The shuffle needs no memory and no saved state: sample number `step * batch_size + row` is mapped to a window
  of the corpus by a seeded permutation that is computed for that sample alone. So training resumes at any step at once,
  and the batches do not depend on the number of ranks or of prefetching threads.
- Each epoch has a permutation of its own, and cuts the corpus into windows at another place.
- A corpus is read as a ring: its last token, an end of document, is followed by its first document.
- In a mixture, every thousand samples hold each corpus exactly in proportion to its weight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import count
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lucidlm.core.errors import InputError
from lucidlm.core.seeds import derive, numpy_generator
from lucidlm.data.corpus.cards import DataCard
from lucidlm.data.split import Split

Integers = NDArray[np.uint64]


class TokenCorpus:
    """The tokens of one split, as one long ring; on disk they stay there until they are asked for.

    Parameters
    ----------
    shards: one-dimensional integer arrays, memory-mapped or not, read one after the other.
    documents, bytes: how many documents and UTF-8 bytes of text the tokens stand for.
    fingerprint: which tokenizer made the tokens; corpora can be mixed if theirs are equal.
    name: what to call the corpus in messages.
    """

    def __init__(
        self,
        shards: Sequence[np.ndarray],
        *,
        documents: int = 1,
        bytes: int = 0,
        fingerprint: str = "",
        name: str = "the corpus",
    ) -> None:
        self.shards = list(shards)
        self.documents, self.bytes, self.fingerprint, self.name = documents, bytes, fingerprint, name
        self._ends = np.cumsum([len(shard) for shard in self.shards], dtype=np.int64)
        self.tokens = int(self._ends[-1]) if self.shards else 0

    @classmethod
    def open(cls, directory: str | Path, split: Split = "train") -> TokenCorpus:
        """Open a split of a directory that `prepare` wrote, once its files match their checksums.

        Raises
        ------
        InputError: the directory holds no prepared data, the split is empty, or a file of it is missing, truncated or
            altered.
        """
        directory = Path(directory)
        card = DataCard.load(directory)
        record = card.splits[split]
        if not record.shards:
            raise InputError(
                f"its {split} split is empty", where=directory, fix="Prepare the data again with a larger share for it."
            )
        card.check(directory, record.shards, verify=True)
        shards = [np.load(directory / shard, mmap_mode="r") for shard in record.shards]
        return cls(
            shards,
            documents=record.documents,
            bytes=record.bytes,
            fingerprint=card.tokenizer.fingerprint,
            name=f"{directory} ({split})",
        )

    def window(self, start: int, length: int) -> NDArray[np.int64]:
        """Return `length` tokens from position `start` on (any integer), going round the ring as often as needed."""
        window = np.empty(length, dtype=np.int64)
        filled, position = 0, start % self.tokens
        shard = int(np.searchsorted(self._ends, position, side="right"))
        while filled < length:
            offset = position - int(self._ends[shard]) + len(self.shards[shard])
            piece = self.shards[shard][offset : offset + length - filled]
            window[filled : filled + len(piece)] = piece
            filled += len(piece)
            position = (position + len(piece)) % self.tokens
            shard = (shard + 1) % len(self.shards)
        return window


class BatchLoader:
    """Batches of windows drawn at random from a corpus, or from several by weight.

    Parameters
    ----------
    corpora: a corpus, or pairs of corpus and weight; weights count to a thousandth of their sum.
    batch_size: windows per step over all ranks.
    context: tokens a window gives the model; it holds one more, so that each has a next.
    seed: what the order depends on.
    rank, ranks: which part of each batch this process takes: rows `rank * batch_size / ranks` and on.

    Raises
    ------
    InputError: a corpus is shorter than one window, tokenizers differ, or `ranks` does not divide `batch_size`.
    """

    BLOCK = 1000
    """Samples over which a mixture's proportions are exact."""

    def __init__(
        self,
        corpora: Sequence[tuple[TokenCorpus, float]] | TokenCorpus,
        *,
        batch_size: int,
        context: int,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        pairs = [(corpora, 1.0)] if isinstance(corpora, TokenCorpus) else list(corpora)
        self.corpora = [corpus for corpus, _ in pairs]
        self.batch_size, self.context, self.seed, self.rank, self.ranks = batch_size, context, seed, rank, ranks
        self._quotas = _quotas([weight for _, weight in pairs], self.BLOCK)
        if batch_size % ranks:
            raise InputError(
                f"a batch of {batch_size} cannot be shared evenly by {ranks} processes",
                where="--batch-size",
                fix=f"Pass a multiple of {ranks}.",
            )
        for corpus in self.corpora:
            if corpus.tokens < context + 1:
                raise InputError(
                    f"has {corpus.tokens:,} tokens, fewer than a window of {context + 1:,} (context + 1)",
                    where=corpus.name,
                    fix="Pass a smaller --context, or prepare more text.",
                )
            if corpus.fingerprint != self.corpora[0].fingerprint:
                raise InputError(
                    f"was made with another tokenizer than {self.corpora[0].name}",
                    where=corpus.name,
                    fix="Prepare it again with --tokenizer-from the other one.",
                )
        self._block = lru_cache(maxsize=4)(self._mix_block)

    def batch(self, step: int) -> Tensor:
        """Return this rank's rows of step `step`: int64 (batch_size / ranks, context + 1), the same whenever asked."""
        rows = self.batch_size // self.ranks
        first = step * self.batch_size + self.rank * rows
        samples = np.arange(first, first + rows)
        windows = np.empty((rows, self.context + 1), dtype=np.int64)
        for index, places, numbers in self._assign(samples):
            corpus = self.corpora[index]
            for place, start in zip(places, self._starts(index, numbers), strict=True):
                windows[place] = corpus.window(int(start), self.context + 1)
        return torch.from_numpy(windows)

    def iterate(self, start_step: int = 0, workers: int = 1) -> Iterator[Tensor]:
        """Yield the batches from `start_step` on, for ever, read ahead by `workers` threads (0: when asked for)."""
        if workers == 0:
            yield from map(self.batch, count(start_step))
            return
        steps = count(start_step)
        pool = ThreadPoolExecutor(workers, thread_name_prefix="loader")
        try:
            ahead = deque(pool.submit(self.batch, next(steps)) for _ in range(2 * workers))
            while True:
                yield ahead.popleft().result()
                ahead.append(pool.submit(self.batch, next(steps)))
        finally:
            pool.shutdown(cancel_futures=True)

    def _assign(self, samples: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """Yield, for each corpus: its index, the rows it fills, and which of its own samples go there, from 0."""
        if len(self.corpora) == 1:
            yield 0, np.arange(len(samples)), samples
            return
        owner, number = np.empty_like(samples), np.empty_like(samples)
        for block in np.unique(samples // self.BLOCK):
            here = samples // self.BLOCK == block
            slots = samples[here] % self.BLOCK
            owners, ranks = self._block(int(block))
            owner[here], number[here] = owners[slots], ranks[slots] + block * self._quotas[owners[slots]]
        for index in range(len(self.corpora)):
            places = np.flatnonzero(owner == index)
            yield index, places, number[places]

    def _mix_block(self, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return, for each slot of a block, the corpus that fills it and how many earlier slots that corpus fills."""
        owners = np.repeat(np.arange(len(self._quotas)), self._quotas)
        owners = numpy_generator(self.seed, "mixture", block).permutation(owners)
        ranks = np.empty_like(owners)
        for index, quota in enumerate(self._quotas):
            ranks[owners == index] = np.arange(quota)
        return owners, ranks

    def _starts(self, index: int, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where in corpus `index` its samples `numbers` start."""
        corpus = self.corpora[index]
        windows = corpus.tokens // self.context
        epochs = (numbers // windows).astype(np.uint64)
        keys = _mix(epochs + np.uint64(derive(self.seed, "order", index)))
        order = permute((numbers % windows).astype(np.uint64), windows, keys).astype(np.int64)
        phases = (_mix(keys) % np.uint64(corpus.tokens)).astype(np.int64)
        return (phases + order * self.context) % corpus.tokens


def permute(values: Integers, size: int, keys: Integers) -> Integers:
    """Map each of `values` (< `size`) through the permutation of range(size) that its key names. All uint64, one shape.

    A Feistel network (Luby and Rackoff 1988, "How to Construct Pseudorandom Permutations from Pseudorandom Functions")
    over pairs of digits to the base ceil(sqrt(size)); results past the end are mapped again until they fall inside
    (cycle walking: Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains"). Memory and time per value do not
    depend on `size`.
    """
    base = int(np.sqrt(size))
    base = np.uint64(base if base * base >= size else base + 1)
    values, outside = values.copy(), np.ones(values.shape, dtype=bool)
    while outside.any():
        left, right = np.divmod(values[outside], base)
        for turn in range(_TURNS):
            left, right = right, (left + _mix(right + keys[outside] * np.uint64(2 * turn + 1))) % base
        values[outside] = left * base + right
        outside = values >= size
    return values


_TURNS = 6


def _mix(values: Integers) -> Integers:
    """Scatter 64-bit integers: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _quotas(weights: Sequence[float], total: int) -> NDArray[np.int64]:
    """Share `total` samples by weight: rounded down, what is left goes to the largest remainders."""
    if not weights or min(weights) <= 0:
        raise InputError("weights have to be positive", where="--data", fix="Leave out the corpora that do not count.")
    shares = np.asarray(weights, dtype=np.float64) / sum(weights) * total
    quotas = np.floor(shares + 1e-9).astype(np.int64)
    quotas[np.argsort(quotas - shares, kind="stable")[: total - quotas.sum()]] += 1
    if quotas.min() == 0:
        raise InputError(
            f"a weight is less than 1/{total} of the sum of all and would never be drawn",
            where="--data",
            fix="Give it more weight or leave the corpus out.",
        )
    return quotas


def sequential_windows(
    corpus: TokenCorpus, context: int, *, stride: int | None = None, batch_size: int = 16
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches that, together, predict every token of `corpus` exactly once, in order.

    A window gives `context` tokens and counts the last `stride` predictions (`context` by default: each token is read
    once; less costs more and leaves each counted token at least `context - stride` before it). The first token is
    predicted from the one before it on the ring, the end of a document; the last window is moved back to be full.

    Yields
    ------
    tokens: int64 (B, T + 1), T = `context`, or the whole corpus if that is shorter.
    counted: bool (B, T), true where the prediction of `tokens[:, 1:]` counts.
    """
    length = min(context, corpus.tokens)
    stride = length if stride is None else min(stride, length)
    firsts = [0, *range(length, corpus.tokens, stride)]  # the first token each window counts
    for batch in range(0, len(firsts), batch_size):
        tokens, counted = [], []
        for first in firsts[batch : batch + batch_size]:
            end = min(first + stride, corpus.tokens) if first else length
            tokens.append(torch.from_numpy(corpus.window(end - length - 1, length + 1)))
            counted.append(torch.arange(end - length, end) >= first)
        yield torch.stack(tokens), torch.stack(counted)
