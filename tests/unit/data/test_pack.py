"""Writing shards and reading them back."""

from __future__ import annotations

import errno

import numpy as np
import pytest
from tests.gguf_models import characters_without_bytes

from lucidlm.core.errors import LucidError
from lucidlm.data.corpus.loader import TokenCorpus
from lucidlm.data.corpus.pack import ShardWriter, dtype_for, pack


def documents(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    return [rng.integers(0, 60_000, rng.integers(1, 30)).astype(np.uint16) for _ in range(count)]


def test_what_is_written_is_read_back_across_shards(tmp_path) -> None:
    written = documents(np.random.default_rng(0), 50)
    with ShardWriter(tmp_path, "train", dtype_for(60_000), shard_tokens=64) as writer:
        for ids in written:
            writer.append(ids, 2 * len(ids))
    record = writer.record
    everything = np.concatenate(written)
    assert (record.documents, record.tokens, record.bytes) == (50, len(everything), 2 * len(everything))
    assert len(record.shards) > 5
    shards = [np.load(tmp_path / name, mmap_mode="r") for name in record.shards]
    assert max(map(len, shards)) <= 64
    assert TokenCorpus(shards).window(0, len(everything)).tolist() == everything.tolist()
    read = []
    for name, shard in zip(record.shards, shards, strict=True):
        starts = np.load(tmp_path / name.replace(".npy", ".starts.npy"))
        read += np.split(shard, starts[1:])
    assert [ids.tolist() for ids in read] == [ids.tolist() for ids in written]


def test_a_split_without_documents_has_no_shards(tmp_path) -> None:
    with ShardWriter(tmp_path, "test", dtype_for(300)) as writer:
        pass
    assert writer.record.shards == []
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_no_half_of_a_shard(tmp_path) -> None:
    def fill_the_disk() -> None:
        with ShardWriter(tmp_path, "train", dtype_for(300)) as writer:
            writer.append(np.arange(10), 10)
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(LucidError, match="no space left"):
        fill_the_disk()
    assert list(tmp_path.iterdir()) == []


def test_ids_take_two_bytes_while_they_fit() -> None:
    assert (dtype_for(65_536).itemsize, dtype_for(65_537).itemsize) == (2, 4)


def test_packing_counts_documents_tokens_and_bytes_by_split(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("lucidlm.data.corpus.pack.BATCH_CHARACTERS", 10)
    tokenizer = characters_without_bytes("abc 中文")
    texts = [("train", "abc abc"), ("validation", "中文"), ("train", "a"), ("train", "xyz")]
    splits, unknown = pack(texts, tokenizer, tmp_path)  # type: ignore[arg-type]
    assert {name: (split.documents, split.tokens, split.bytes) for name, split in splits.items()} == {
        "train": (3, 8 + 2 + 4, 11),
        "validation": (1, 3, 6),
        "test": (0, 0, 0),
    }
    assert (unknown.characters, unknown.of, unknown.first) == (3, 13, "x")
    expected = [i for split, text in texts if split == "train" for i in tokenizer.encode(text, add_eos=True)]
    assert np.load(tmp_path / "train-00000.npy").tolist() == expected
