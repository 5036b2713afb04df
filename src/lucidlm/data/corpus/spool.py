"""A temporary file of texts, written once and read as often as needed: what keeps a large corpus out of memory."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from lucidlm.data.split import Split

_RECORD = struct.Struct("<cII")
_CODES: dict[Split, bytes] = {"train": b"t", "validation": b"v", "test": b"e"}
_SPLITS: dict[bytes, Split] = {b"t": "train", b"v": "validation", b"e": "test"}


class Spool:
    """Texts with their splits, in the order they were written; a context manager that removes the file in the end.

    `documents`, `bytes` (UTF-8) and `characters` count what each split holds.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self.documents: Counter[Split] = Counter()
        self.bytes: Counter[Split] = Counter()
        self.characters: Counter[Split] = Counter()

    def __enter__(self) -> Spool:
        self._file = self._path.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._path.unlink()

    def write(self, text: str, split: Split, where: str) -> None:
        encoded, place = text.encode(), where.encode()
        self._file.write(_RECORD.pack(_CODES[split], len(encoded), len(place)))
        self._file.write(encoded)
        self._file.write(place)
        self.documents[split] += 1
        self.bytes[split] += len(encoded)
        self.characters[split] += len(text)

    def __iter__(self) -> Iterator[tuple[Split, str]]:
        return ((split, text) for split, text, _ in self.located())

    def located(self) -> Iterator[tuple[Split, str, str]]:
        """Yield each text with its split and where it was read."""
        self._file.flush()
        with self._path.open("rb") as file:
            while head := file.read(_RECORD.size):
                code, size, width = _RECORD.unpack(head)
                yield _SPLITS[code], file.read(size).decode(), file.read(width).decode()
