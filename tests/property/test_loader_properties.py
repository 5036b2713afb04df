"""What holds for any corpus, seed and arrangement of ranks and workers."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lucidlm.data.corpus.loader import BatchLoader, TokenCorpus, permute, sequential_windows

SEEDS = st.integers(0, 2**63 - 1)


def sharded(tokens: int, *cuts: int) -> TokenCorpus:
    """A corpus whose tokens tell their positions, cut into shards."""
    return TokenCorpus(np.split(np.arange(tokens, dtype=np.uint16), sorted(min(cut, tokens - 1) for cut in cuts)))


@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_a_permutation_is_one(size: int, key: int) -> None:
    order = permute(np.arange(size, dtype=np.uint64), size, np.full(size, key, dtype=np.uint64))
    assert sorted(order.tolist()) == list(range(size))


@given(size=st.integers(2**40, 2**50), values=st.lists(st.integers(0, 2**40 - 1), min_size=1, unique=True), key=SEEDS)
def test_a_permutation_of_a_huge_range_stays_inside_and_keeps_values_apart(
    size: int, values: list[int], key: int
) -> None:
    order = permute(np.array(values, dtype=np.uint64), size, np.full(len(values), key, dtype=np.uint64))
    assert int(order.max()) < size
    assert len(set(order.tolist())) == len(values)


@given(
    tokens=st.integers(1, 60),
    cuts=st.lists(st.integers(0, 59), max_size=4),
    start=st.integers(-200, 200),
    length=st.integers(0, 150),
)
def test_a_window_reads_the_ring(tokens: int, cuts: list[int], start: int, length: int) -> None:
    window = sharded(tokens, *cuts).window(start, length)
    assert window.tolist() == [(start + i) % tokens for i in range(length)]


LOADERS = st.builds(
    lambda parts, context, seed, rows, ranks: (
        lambda rank=0, ranks_=1: BatchLoader(
            [(sharded(context + 1 + extra, 5), weight) for extra, weight in parts],
            batch_size=rows * ranks,
            context=context,
            seed=seed,
            rank=rank,
            ranks=ranks_,
        ),
        ranks,
    ),
    parts=st.lists(st.tuples(st.integers(0, 300), st.floats(0.1, 10)), min_size=1, max_size=3),
    context=st.integers(1, 20),
    seed=SEEDS,
    rows=st.integers(1, 5),
    ranks=st.integers(1, 4),
)
"""A function that makes the loader of a rank, and the number of ranks."""


@given(made=LOADERS, step=st.integers(0, 10**9))
def test_ranks_together_draw_what_one_alone_does(made, step: int) -> None:
    make, ranks = made
    together = torch.cat([make(rank, ranks).batch(step) for rank in range(ranks)])
    assert torch.equal(together, make().batch(step))


@given(made=LOADERS, start=st.integers(0, 10**6), workers=st.integers(0, 3))
def test_reading_ahead_from_anywhere_changes_nothing(made, start: int, workers: int) -> None:
    loader = made[0]()
    ahead = loader.iterate(start, workers)
    batches = list(islice(ahead, 4))
    ahead.close()
    assert all(torch.equal(batch, loader.batch(start + i)) for i, batch in enumerate(batches))


@given(seed=SEEDS, tokens=st.integers(40, 400), context=st.integers(1, 20), epoch=st.integers(0, 1000))
def test_an_epoch_reads_nothing_twice(seed: int, tokens: int, context: int, epoch: int) -> None:
    windows = tokens // context
    loader = BatchLoader(sharded(tokens), batch_size=windows, context=context, seed=seed)
    inputs = loader.batch(epoch)[:, :-1].flatten().tolist()
    assert len(set(inputs)) == windows * context


@given(seed=SEEDS, weights=st.lists(st.integers(1, 20), min_size=2, max_size=5), block=st.integers(0, 10**6))
def test_every_thousand_samples_are_shared_by_weight(seed: int, weights: list[int], block: int) -> None:
    parts = [(TokenCorpus([np.full(10, i, np.uint16)]), weight) for i, weight in enumerate(weights)]
    owners = BatchLoader(parts, batch_size=1000, context=1, seed=seed).batch(block)[:, 0]
    counts = torch.bincount(owners, minlength=len(weights)).numpy()
    assert np.abs(counts - 1000 * np.array(weights) / sum(weights)).max() < 1


@given(
    tokens=st.integers(1, 120),
    context=st.integers(1, 30),
    stride=st.none() | st.integers(1, 40),
    batch_size=st.integers(1, 9),
)
def test_sequential_windows_count_every_token_once_in_order(
    tokens: int, context: int, stride: int | None, batch_size: int
) -> None:
    seen = []
    for batch, counted in sequential_windows(sharded(tokens), context, stride=stride, batch_size=batch_size):
        assert batch.shape == (len(counted), min(context, tokens) + 1)
        assert bool(((batch[:, 1:] - batch[:, :-1] - 1) % tokens == 0).all())
        seen += batch[:, 1:][counted].tolist()
    assert seen == list(range(tokens))


@pytest.mark.parametrize("size", [5, 100])
def test_permutations_spread_evenly(size: int) -> None:
    """Each value lands everywhere about equally often, by chi-square over 2,000 keys."""
    keys = np.arange(2000, dtype=np.uint64)
    for value in (0, size // 2, size - 1):
        landed = permute(np.full(2000, value, dtype=np.uint64), size, keys)
        expected = 2000 / size
        chi_square = ((np.bincount(landed.astype(int), minlength=size) - expected) ** 2 / expected).sum()
        assert chi_square < size + 6 * np.sqrt(2 * size)
