"""Documents to shards of token ids: plain .npy files that training maps into memory.

A split is stored as `train-00000.npy`, `train-00001.npy` …, each a one-dimensional array of ids in which every document
is followed by the end-of-document token, and beside each `train-00000.starts.npy`: where its documents begin (int64).
Memory stays bounded: ids go straight to disk, and texts are encoded some megabytes at a time.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.lib import format as npy

from lucidlm.core.io import atomic_path
from lucidlm.core.parallel import in_chunks
from lucidlm.core.progress import ProgressBar
from lucidlm.data.corpus.cards import SplitRecord
from lucidlm.data.split import Split
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.tokenize.unknown import Unknown, count_unknown

SHARD_TOKENS = 100_000_000
BATCH_CHARACTERS = 2_000_000
"""Characters encoded at once; an encoding takes about a hundred bytes of memory per token."""
PIECE_CHARACTERS = 50_000
"""Characters above which a document is encoded in pieces, so that all cores have work and memory stays bounded."""


class ShardWriter:
    """Writes one split, document by document; a context manager.

    Parameters
    ----------
    directory, split: the shards' place and the beginning of their names.
    dtype: of the ids: uint16, or uint32 for vocabularies past 65,536 (see `dtype_for`).
    shard_tokens: the most tokens in a shard; a document that would not fit begins the next one.
    """

    def __init__(self, directory: str | Path, split: str, dtype: np.dtype, shard_tokens: int = SHARD_TOKENS) -> None:
        self.directory, self.split, self.dtype, self.shard_tokens = Path(directory), split, dtype, shard_tokens
        self.record = SplitRecord(documents=0, tokens=0, bytes=0, shards=[])
        self._starts, self._tokens, self._open = array("q"), 0, ExitStack()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._open.__exit__(kind, error, trace)  # removes what was written of the open shard
            return
        with self._open:
            self._close_shard()

    def append(self, ids: np.ndarray, text_bytes: int) -> None:
        """Write a document: its ids, the last one the end of a document, and how many UTF-8 bytes they stand for."""
        if self._tokens + len(ids) > self.shard_tokens:
            self._close_shard()
        if not self._starts:
            self._open_shard()
        self._starts.append(self._tokens)
        self._file.write(ids.astype(self.dtype, copy=False).tobytes())
        self._tokens += len(ids)
        self.record.documents += 1
        self.record.tokens += len(ids)
        self.record.bytes += text_bytes

    def _open_shard(self) -> None:
        self._name = f"{self.split}-{len(self.record.shards):05d}"
        temporary = self._open.enter_context(atomic_path(self.directory / f"{self._name}.npy"))
        self._file = self._open.enter_context(temporary.open("wb"))
        self._write_header()

    def _write_header(self) -> None:
        shape = (self._tokens,)  # numpy pads headers, so that one with another length takes up the same space
        npy.write_array_header_1_0(self._file, {"descr": self.dtype.str, "fortran_order": False, "shape": shape})

    def _close_shard(self) -> None:
        if not self._starts:
            return
        self._file.seek(0)
        self._write_header()
        self._open.close()
        with atomic_path(self.directory / f"{self._name}.starts.npy") as temporary, temporary.open("wb") as file:
            np.save(file, np.frombuffer(self._starts, dtype=np.int64))
        self.record.shards.append(f"{self._name}.npy")
        self._starts, self._tokens = array("q"), 0


def dtype_for(vocab_size: int) -> np.dtype:
    """Return the narrowest dtype that shards of such a vocabulary are stored in."""
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")


def pack(
    documents: Iterable[tuple[Split, str]],
    tokenizer: Tokenizer,
    directory: str | Path,
    *,
    total_bytes: int | None = None,
) -> tuple[dict[Split, SplitRecord], Unknown]:
    """Encode `documents` on all cores and write the shards of each split to `directory`.

    The next batch is encoded while one is written. Shows progress, out of `total_bytes` if they are known.

    Returns
    -------
    What each split holds (a split without documents has no shards), and which characters the tokenizer has no token for.
    """
    dtype, unknown = dtype_for(tokenizer.vocab_size), Unknown()
    with ExitStack() as stack:
        task = stack.enter_context(ProgressBar("tokenising", total_bytes and total_bytes / 1e6, "MB"))
        splits: tuple[Split, ...] = ("train", "validation", "test")
        writers: dict[Split, ShardWriter] = {
            split: stack.enter_context(ShardWriter(directory, split, dtype)) for split in splits
        }
        batches = in_chunks(documents, lambda document: len(document[1]), BATCH_CHARACTERS)
        for batch, encoded in _encode_ahead(batches, tokenizer, dtype):
            for (split, text), ids in zip(batch, encoded, strict=True):
                size = len(text) if text.isascii() else len(text.encode())
                writers[split].append(ids, size)
                task.advance(size / 1e6)
            unknown += count_unknown(tokenizer, [text for _, text in batch], encoded=encoded)
    return {split: writer.record for split, writer in writers.items()}, unknown


Batch = list[tuple[Split, str]]


def _encode_ahead(
    batches: Iterator[Batch], tokenizer: Tokenizer, dtype: np.dtype
) -> Iterator[tuple[Batch, list[np.ndarray]]]:
    """Yield each batch with its documents' ids, always encoding one batch ahead."""
    with ThreadPoolExecutor(1, thread_name_prefix="encode") as pool:
        previous = None
        for batch in batches:
            current = batch, pool.submit(encode_documents, tokenizer, [text for _, text in batch], dtype)
            if previous is not None:
                yield previous[0], previous[1].result()
            previous = current
        if previous is not None:
            yield previous[0], previous[1].result()


def encode_documents(tokenizer: Tokenizer, texts: Sequence[str], dtype: np.dtype) -> list[np.ndarray]:
    """Return the ids of each text, the end-of-document token last, encoded on all cores.

    Long texts are encoded in pieces (see `cut`); the ids are the same.
    """
    documents: list[list[np.ndarray]] = [[] for _ in texts]
    owners: list[int] = []
    pieces: list[str] = []
    for owner, text in enumerate(texts):
        for piece in cut(text, PIECE_CHARACTERS):
            owners.append(owner)
            pieces.append(piece)
    for owner, ids in zip(owners, tokenizer.encode_batch(pieces), strict=True):
        documents[owner].append(np.array(ids, dtype=dtype))
    end = np.array([tokenizer.eos_id], dtype=dtype)
    return [np.concatenate([*parts, end]) for parts in documents]


def cut(text: str, size: int) -> Iterator[str]:
    """Yield `text` in pieces of at most `size` characters, cut where no token of ours reaches across.

    Only a stretch of a thousand characters without such a place (they are everywhere in text) is cut regardless.
    """
    start = 0
    while len(text) - start > size:
        end = start + size
        places = [match.start() for match in _BOUNDARY.finditer(text, max(start + 1, end - 1000), end)]
        end = places[-1] if places else end
        yield text[start:end]
        start = end
    yield text[start:]


_BOUNDARY = re.compile(r"(?<=\n)(?=\S)|(?<=\w)(?= \w)|(?<=[,.;:!?，。；：！？])(?=[^\W_])")
