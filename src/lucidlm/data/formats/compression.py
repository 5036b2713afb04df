"""Read .gz and .zst as streams; a truncated or damaged file is an error, never a short text."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

import zstandard

from lucidlm.core.errors import InputError

COMPRESSIONS = (".gz", ".zst")
CHUNK = 1 << 20


def decompress(file: BinaryIO, suffix: str, name: str) -> BinaryIO:
    """Return a stream of the decompressed `file`, of one or more gzip members or zstd frames.

    Raises
    ------
    InputError: (while reading) the data are damaged or truncated.
    """
    chunks = _gunzip(file) if suffix == ".gz" else _unzstd(file)
    return cast(BinaryIO, io.BufferedReader(_Chunks(chunks, name), CHUNK))


def _gunzip(file: BinaryIO) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) as stream:
        while chunk := stream.read(CHUNK):
            yield chunk


def _unzstd(file: BinaryIO) -> Iterator[bytes]:
    """Yield the contents frame by frame. (zstandard's own reader does not notice a truncated file.)"""
    decompressor = zstandard.ZstdDecompressor()
    frame, rest = decompressor.decompressobj(), b""
    begun = False
    while data := rest or file.read(CHUNK // 8):
        if chunk := frame.decompress(data):
            yield chunk
        begun, rest = True, b""
        if frame.eof:
            rest, frame, begun = frame.unused_data, decompressor.decompressobj(), False
    if begun:
        raise EOFError("the last frame is cut short")


class _Chunks(io.RawIOBase):
    """A readable stream over an iterator of byte strings."""

    def __init__(self, chunks: Iterator[bytes], name: str) -> None:
        self._chunks, self._name, self._rest = chunks, name, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            try:
                self._rest = memoryview(next(self._chunks))
            except StopIteration:
                return 0
            except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
                raise InputError(
                    f"is damaged or cut short ({error})", where=self._name, fix="Fetch or make it again."
                ) from error
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count
