"""The header of a GGUF file (ggml's docs/gguf.md, versions 2 and 3), read without trusting a number in it.

Every count, length and offset is checked against the size of the file before anything is looped over or allocated.
`gguf.GGUFReader` is not used: it trusts its input. A count of 2**40 in a file of 100 bytes keeps it looping, a length past
the end becomes an IndexError in NumPy, and a list of 49,152 tokens takes it seconds, as each token becomes two arrays.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGUF_DEFAULT_ALIGNMENT, GGMLQuantizationType, GGUFValueType, Keys

from lucidlm.core.errors import InputError

MAGIC = b"GGUF"
VERSIONS = (2, 3)

LARGEST_HEADER = 128 << 20
"""Bytes. Headers with a vocabulary of 260,000 tokens are below 16 MiB; lists take several times as much in memory."""
MOST_ENTRIES = 65_536
"""Of metadata and of tensors; the largest models have about 2,000."""
MOST_ELEMENTS = 1 << 22
"""Of a list of strings; the largest vocabularies have 260,000 tokens and 520,000 merges."""
LONGEST_TEXT = 1 << 22
"""Bytes; the longest strings are chat templates, with some 10,000."""
MOST_DIMENSIONS = 4

NUMBERS: dict[int, str] = {
    GGUFValueType.UINT8: "<u1",
    GGUFValueType.INT8: "<i1",
    GGUFValueType.UINT16: "<u2",
    GGUFValueType.INT16: "<i2",
    GGUFValueType.UINT32: "<u4",
    GGUFValueType.INT32: "<i4",
    GGUFValueType.FLOAT32: "<f4",
    GGUFValueType.BOOL: "<u1",
    GGUFValueType.UINT64: "<u8",
    GGUFValueType.INT64: "<i8",
    GGUFValueType.FLOAT64: "<f8",
}
"""NumPy's dtypes for GGUF's numeric value types; a bool is a byte."""


@dataclass(frozen=True)
class TensorInfo:
    """The type, shape and position of a tensor in the file.

    Parameters
    ----------
    shape: rows first, as in NumPy; in the file it is reversed.
    offset, nbytes: its position and size in the file, in bytes.
    """

    name: str
    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def bytes_of(shape: tuple[int, ...], kind: GGMLQuantizationType) -> int:
    """Return the size in bytes of a tensor stored as `kind`, which is done in blocks of elements."""
    block, size = GGML_QUANT_SIZES[kind]
    return prod(shape) // block * size


@dataclass(frozen=True)
class Header:
    """The metadata and the tensors' descriptions in a GGUF file; lists of numbers are NumPy arrays.

    Keys are those of `gguf.Keys`; `{arch}` in a key is replaced by the file's architecture.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """Return a metadata value, or `default` if there is none.

        Raises
        ------
        InputError: it is not of this `kind`.
        """
        key = self._full(key)
        value = self.metadata.get(key)
        if value is None:
            return default
        # A bool is an int in Python, but not in GGUF.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise InputError(f"{key} is not of the kind it should be (it is {_shown(value)})", where=self.path)
        return value

    def require(self, key: str, kind: type | tuple[type, ...]) -> Any:
        """Return a metadata value that must be there.

        Raises
        ------
        InputError: there is none, or it is not of this `kind`.
        """
        if (full := self._full(key)) not in self.metadata:
            raise InputError(f"the metadata have no {full}", where=self.path, fix="The file is incomplete.")
        return self.get(key, kind)

    def _full(self, key: str) -> str:
        return key.format(arch=self.metadata.get(Keys.General.ARCHITECTURE))


def read_header(path: str | Path) -> Header:
    """Read and check the header of a GGUF file.

    Raises
    ------
    InputError: the file is missing, not GGUF, of an unsupported version, truncated, or invalid.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("file not found", where=path)
    with open(path, "rb") as file:
        if file.read(4) != MAGIC:
            raise InputError("is not a GGUF file", where=path, fix="Pass a file that llama.cpp opens.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _HeaderReader(data, path).read()


class _HeaderReader:
    """Parses the bytes of a header in one pass."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path = data, path
        self.end = min(len(data), LARGEST_HEADER)
        self.at = len(MAGIC)

    def read(self) -> Header:
        version = self.number("<I", "the version")
        if version not in VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
            what = "is big-endian" if swapped else f"has version {version} of the format"
            raise self.refuse(f"{what}; little-endian files of versions 2 and 3 are read", "Convert it again.")
        tensors = self.count("<Q", 8 + 4 + 8 + 4 + 8, MOST_ENTRIES, "tensors")
        entries = self.count("<Q", 8 + 4 + 1, MOST_ENTRIES, "metadata entries")
        metadata: dict[str, Any] = {}
        for _ in range(entries):
            key = self.name("a metadata key")
            if key in metadata:
                raise self.refuse(f"says {key} twice")
            metadata[key] = self.value(key)
        alignment = metadata.get(Keys.General.ALIGNMENT, GGUF_DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise self.refuse(f"has an alignment of {_shown(alignment)}, which is no power of two from 8 on")
        infos: dict[str, TensorInfo] = {}
        for _ in range(tensors):
            info = self.tensor(alignment)
            if info.name in infos:
                raise self.refuse(f"lists the tensor {info.name} twice")
            infos[info.name] = info
        return Header(self.path, metadata, self.placed(infos, -(-self.at // alignment) * alignment))

    def refuse(self, what: str, fix: str = "It is damaged or cut short; get it again.") -> InputError:
        return InputError(what, where=self.path, fix=fix)

    # ------------------------------------------------------------------ pieces

    def need(self, size: int, what: str) -> None:
        """Refuse the file unless `size` more bytes are there."""
        if size > self.end - self.at:
            limit = "a header may have" if self.end < len(self.data) else "the file has"
            raise self.refuse(f"{what} would end at byte {self.at + size:,}, {limit} {self.end:,}")

    def number(self, form: str, what: str) -> int:
        self.need(struct.calcsize(form), what)
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def count(self, form: str, smallest: int, most: int, what: str) -> int:
        """Read the number of following items, each of which takes at least `smallest` bytes."""
        count = self.number(form, f"the number of {what}")
        if count > most:
            raise self.refuse(f"claims {count:,} {what}; no model has more than {most:,}")
        self.need(count * smallest, f"the {count:,} {what}")
        return count

    def text(self, what: str) -> str:
        size = self.number("<Q", f"the length of {what}")
        if size > LONGEST_TEXT:
            raise self.refuse(f"claims {size:,} bytes for {what}; texts have {LONGEST_TEXT:,} at most")
        self.need(size, what)
        self.at += size
        try:
            return self.data[self.at - size : self.at].decode()
        except UnicodeDecodeError:
            raise self.refuse(f"{what} is not UTF-8") from None

    def name(self, what: str) -> str:
        """Read a printable string, which messages may quote."""
        name = self.text(what)
        if not name.isprintable():
            raise self.refuse(f"{what} is {_shown(name)}")
        return name

    def value(self, key: str) -> Any:
        kind = self.number("<I", f"the type of {key}")
        if kind == GGUFValueType.STRING:
            return self.text(key)
        if kind != GGUFValueType.ARRAY:
            value = self.numbers(kind, 1, key)[0]
            # The shortest decimal that is the same float32: 1e-05, not 9.999999747378752e-06.
            return float(str(value)) if kind == GGUFValueType.FLOAT32 else value.item()
        kind = self.number("<I", f"the type of {key}")
        if kind == GGUFValueType.STRING:
            return [
                self.text(f"an element of {key}") for _ in range(self.count("<Q", 8, MOST_ELEMENTS, f"texts of {key}"))
            ]
        if kind == GGUFValueType.ARRAY:
            raise self.refuse(f"{key} is a list of lists, which no metadata of a model are")
        return self.numbers(kind, self.number("<Q", f"the length of {key}"), key)

    def numbers(self, kind: int, count: int, key: str) -> np.ndarray:
        if kind not in NUMBERS:
            raise self.refuse(f"{key} has the value type {kind}, which there is not")
        form = np.dtype(NUMBERS[kind])
        self.need(count * form.itemsize, key)
        values = np.frombuffer(self.data, form, count, self.at).copy()
        self.at += values.nbytes
        if kind == GGUFValueType.BOOL:
            if (values > 1).any():
                raise self.refuse(f"{key} is neither true nor false")
            values = values.astype(bool)
        return values

    def tensor(self, alignment: int) -> TensorInfo:
        """Read one tensor's description; its offset is relative to the start of the data."""
        name = self.name("a tensor's name")
        dimensions = self.number("<I", f"the dimensions of {name}")
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            raise self.refuse(f"{name} has {dimensions:,} dimensions; tensors have 1 to {MOST_DIMENSIONS}")
        shape = tuple(self.number("<Q", f"the shape of {name}") for _ in range(dimensions))[::-1]
        code = self.number("<I", f"the type of {name}")
        offset = self.number("<Q", f"the offset of {name}")
        if code not in TYPES:
            raise self.refuse(f"{name} has the tensor type {code}, which is not known", "Install a newer gguf package.")
        kind = TYPES[code]
        block = GGML_QUANT_SIZES[kind][0]
        if 0 in shape or shape[-1] % block:
            raise self.refuse(f"{name} has the shape {shape}, which {kind.name} with its blocks of {block} cannot have")
        if offset % alignment:
            raise self.refuse(f"{name} lies at {offset:,}, which is no multiple of the alignment, {alignment}")
        return TensorInfo(name, kind, shape, offset, bytes_of(shape, kind))

    def placed(self, infos: dict[str, TensorInfo], start: int) -> dict[str, TensorInfo]:
        """Return the tensors with absolute offsets, for data that begin at `start`; none may overlap or pass the end."""
        placed = {}
        taken, before = start, ""
        for info in sorted(infos.values(), key=lambda info: info.offset):
            begin = start + info.offset
            if begin < taken:
                raise self.refuse(f"the tensors {before} and {info.name} overlap")
            taken, before = begin + info.nbytes, info.name
            if taken > len(self.data):
                raise self.refuse(
                    f"the tensor {info.name} would end at byte {taken:,}, the file has {len(self.data):,}"
                )
            placed[info.name] = TensorInfo(info.name, info.kind, info.shape, begin, info.nbytes)
        return placed


TYPES = {kind.value: kind for kind in GGMLQuantizationType}


def _shown(value: Any) -> str:
    """Return a value shortened for a message."""
    text = repr(value) if isinstance(value, str | int | float | bool) else f"a list of {len(value):,}"
    return text if len(text) <= 80 else f"{text[:80]} …"
