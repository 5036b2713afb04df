"""Reading packed corpora: windows, batches, mixtures, and what is refused."""

from __future__ import annotations

import threading
from itertools import islice

import numpy as np
import pytest
import torch

from lucidlm.core.errors import InputError
from lucidlm.data.corpus.loader import BatchLoader, TokenCorpus, sequential_windows


def corpus(tokens: int, **facts) -> TokenCorpus:
    """A corpus whose tokens tell their positions."""
    return TokenCorpus([np.arange(tokens, dtype=np.uint16)], **facts)


def test_a_batch_holds_windows_of_consecutive_tokens() -> None:
    batch = BatchLoader(corpus(1000), batch_size=8, context=16, seed=0).batch(0)
    assert (batch.shape, batch.dtype) == ((8, 17), torch.int64)
    assert bool(((batch[:, 1:] - batch[:, :-1]) % 1000 == 1).all())


def test_an_epoch_visits_each_window_once_and_others_cut_elsewhere() -> None:
    loader = BatchLoader(corpus(1000), batch_size=5, context=10, seed=3)
    epochs = [torch.cat([loader.batch(20 * epoch + step) for step in range(20)]) for epoch in range(4)]
    for epoch in epochs:
        assert sorted(epoch[:, :10].flatten().tolist()) == list(range(1000))
    assert len({int(epoch[0, 0]) % 10 for epoch in epochs}) > 1
    assert not torch.equal(epochs[0], epochs[1])


def test_another_seed_gives_another_order() -> None:
    first, second = (BatchLoader(corpus(1000), batch_size=8, context=16, seed=seed).batch(0) for seed in (0, 1))
    assert not torch.equal(first, second)


def test_a_corpus_smaller_than_a_batch_is_gone_through_again() -> None:
    batch = BatchLoader(corpus(9), batch_size=64, context=8, seed=0).batch(7)
    assert batch.shape == (64, 9)
    assert len(set(batch[:, 0].tolist())) == 9


def test_read_ahead_stops_its_threads_when_it_is_no_longer_wanted() -> None:
    before = threading.active_count()
    batches = BatchLoader(corpus(100), batch_size=2, context=4, seed=0).iterate(workers=3)
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before


def test_a_mixture_keeps_its_proportions_and_replays_nothing() -> None:
    parts = [(corpus(50_000), 3.0), (TokenCorpus([np.full(60_000, 60_000, np.uint16)]), 1.0)]
    loader = BatchLoader(parts, batch_size=100, context=10, seed=0)
    batches = torch.cat(list(islice(loader.iterate(workers=0), 60)))
    first = batches[batches[:, 0] < 60_000]
    assert len(first) == 4500
    assert len(set(first[:, 0].tolist())) == 4500


def test_weights_that_mean_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="have to be positive"):
        BatchLoader([(corpus(100), 1.0), (corpus(100), 0.0)], batch_size=2, context=4, seed=0)
    with pytest.raises(InputError, match="less than 1/1000"):
        BatchLoader([(corpus(100), 1.0), (corpus(100), 1e-5)], batch_size=2, context=4, seed=0)


def test_a_corpus_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(InputError, match=r"small: has 16 tokens, fewer than a window of 17 .*smaller --context"):
        BatchLoader(corpus(16, name="small"), batch_size=2, context=16, seed=0)
    assert BatchLoader(corpus(17), batch_size=2, context=16, seed=0).batch(0).shape == (2, 17)


def test_corpora_of_different_tokenizers_are_refused() -> None:
    parts = [(corpus(100, fingerprint="a"), 1.0), (corpus(100, fingerprint="b", name="other"), 1.0)]
    with pytest.raises(InputError, match="other: was made with another tokenizer"):
        BatchLoader(parts, batch_size=2, context=4, seed=0)


def test_ranks_have_to_share_a_batch_evenly() -> None:
    with pytest.raises(InputError, match="multiple of 3"):
        BatchLoader(corpus(100), batch_size=8, context=4, seed=0, ranks=3)


def test_sequential_windows_mark_what_counts() -> None:
    batches = list(sequential_windows(corpus(10), 4, batch_size=2))
    assert [tokens.shape for tokens, _ in batches] == [(2, 5), (1, 5)]
    assert batches[0][0].tolist() == [[9, 0, 1, 2, 3], [3, 4, 5, 6, 7]]
    assert batches[1][0].tolist() == [[5, 6, 7, 8, 9]]
    assert batches[1][1].tolist() == [[False, False, True, True]]
