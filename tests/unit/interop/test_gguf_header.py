"""Headers of GGUF files: what is sound is read, what lies is refused before anything is looped over or allocated."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lucidlm.core.errors import InputError
from lucidlm.interop.gguf.header import Header, read_header

U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10


def text(value: str | bytes) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(value)) + value


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def many(kind: int, count: int, values: bytes) -> bytes:
    return struct.pack("<IQ", kind, count) + values


def tensor(name: str, shape: tuple[int, ...] = (2, 4), kind: int = 0, offset: int = 0) -> bytes:
    sizes = struct.pack(f"<{len(shape)}Q", *reversed(shape))
    return text(name) + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", kind, offset)


NAME = entry("general.name", STRING, text("a"))
COUNT = entry("count", U32, struct.pack("<I", 7))
WORDS = entry("words", ARRAY, many(STRING, 2, text("x") + text("yz")))
NUMBERS = entry("numbers", ARRAY, many(F32, 3, struct.pack("<3f", 1, 2, 1e-5)))
FLAG = entry("flag", BOOL, b"\1")
FLAGS = entry("flags", ARRAY, many(BOOL, 2, b"\0\1"))


def file(
    *entries: bytes,
    tensors: tuple[bytes, ...] = (tensor("t"),),
    data: int = 32,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    align: int = 32,
) -> bytes:
    """Return a file; `counts` are those of tensors and metadata that it claims."""
    counted = struct.pack("<QQ", *(counts or (len(tensors), len(entries))))
    header = b"GGUF" + struct.pack("<I", version) + counted + b"".join(entries) + b"".join(tensors)
    return header + bytes(-len(header) % align) + bytes(data)


SOUND = file(NAME, COUNT, WORDS, NUMBERS, FLAG, FLAGS)


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], Header]:
    def reading(content: bytes) -> Header:
        path = tmp_path / "model.gguf"
        path.write_bytes(content)
        return read_header(path)

    return reading


def test_a_sound_file(read: Callable[[bytes], Header]) -> None:
    for version in (2, 3):
        header = read(file(NAME, COUNT, WORDS, NUMBERS, FLAG, FLAGS, version=version))
        assert header.metadata["general.name"] == "a"
        assert header.metadata["count"] == 7
        assert header.metadata["words"] == ["x", "yz"]
        np.testing.assert_array_equal(header.metadata["numbers"], np.array([1, 2, 1e-5], np.float32))
        assert header.metadata["flag"] is True
        assert header.metadata["flags"].tolist() == [False, True]
        info = header.tensors["t"]
        assert (info.shape, info.kind.name, info.nbytes, info.offset % 32) == ((2, 4), "F32", 32, 0)
    assert read(file(entry("e", F32, struct.pack("<f", 1e-5)))).metadata["e"] == 1e-5


def test_an_alignment_of_its_own(read: Callable[[bytes], Header]) -> None:
    alignment = entry("general.alignment", U32, struct.pack("<I", 64))
    tensors = (tensor("a"), tensor("b", offset=64))
    header = read(file(alignment, tensors=tensors, data=96, align=64))
    assert header.tensors["a"].offset % 64 == 0
    assert header.tensors["b"].offset == header.tensors["a"].offset + 64


def test_a_file_cut_short_anywhere_is_refused(read: Callable[[bytes], Header]) -> None:
    read(SOUND)
    for size in range(len(SOUND)):
        with pytest.raises(InputError):
            read(SOUND[:size])


def test_no_change_of_bytes_does_worse_than_being_refused(read: Callable[[bytes], Header]) -> None:
    draw = random.Random(0)
    for place in range(len(SOUND)):
        for value in (0, 1, 0x7F, 0xFF, draw.randrange(256)):
            changed = bytearray(SOUND)
            changed[place] = value
            try:
                header = read(bytes(changed))
            except InputError:
                continue
            assert all(info.offset + info.nbytes <= len(SOUND) for info in header.tensors.values())


HUGE = 1 << 62
LIES: dict[str, tuple[bytes, str]] = {
    "not GGUF": (b"GGML" + SOUND[4:], "is not a GGUF file"),
    "empty": (b"", "is not a GGUF file"),
    "old": (file(version=1), "version 1"),
    "big-endian": (file(version=3 << 24), "big-endian"),
    "tensors": (file(counts=(HUGE, 0)), "claims 4,611,686,018,427,387,904 tensors"),
    "tensors, fewer": (file(counts=(60_000, 0)), "60,000 tensors would end at byte"),
    "entries": (file(counts=(1, HUGE)), "metadata entries"),
    "entries, fewer": (file(counts=(1, 60_000)), "60,000 metadata entries would end at byte"),
    "key": (file(struct.pack("<Q", HUGE) + bytes(20)), "bytes for a metadata key"),
    "key beyond the end": (file(struct.pack("<Q", 1 << 20) + bytes(20)), "a metadata key would end"),
    "key that is no text": (file(text(b"\xff\xfe") + struct.pack("<I", F32) + bytes(4)), "is not UTF-8"),
    "texts": (file(entry("a", ARRAY, many(STRING, HUGE, b""))), "texts of a"),
    "numbers": (file(entry("a", ARRAY, many(U64, HUGE, b""))), "a would end at byte"),
    "value type": (file(entry("a", 99, bytes(8))), "value type 99"),
    "element type": (file(entry("a", ARRAY, many(99, 1, bytes(8)))), "value type 99"),
    "list of lists": (file(entry("a", ARRAY, many(ARRAY, 1, bytes(12)))), "list of lists"),
    "bool": (file(entry("a", BOOL, b"\2")), "neither true nor false"),
    "a key twice": (file(NAME, NAME), "says general.name twice"),
    "alignment 0": (file(entry("general.alignment", U32, bytes(4))), "alignment of 0"),
    "alignment 24": (file(entry("general.alignment", U32, struct.pack("<I", 24))), "alignment of 24"),
    "alignment, a text": (file(entry("general.alignment", STRING, text("32"))), "alignment of '32'"),
    "a key of several lines": (file(entry("a\nb", U32, bytes(4))), r"a metadata key is 'a\nb'"),
    "a tensor's name that writes on the screen": (file(tensors=(tensor("\x1b[2J"),)), r"a tensor's name is '\x1b[2J'"),
    "a tensor twice": (file(tensors=(tensor("t"), tensor("t", offset=32)), data=64), "lists the tensor t twice"),
    "overlapping": (
        file(tensors=(tensor("a", (4, 4)), tensor("b", offset=32)), data=64),
        "the tensors a and b overlap",
    ),
    "the same place": (file(tensors=(tensor("a"), tensor("b"))), "overlap"),
    "beyond the end": (file(tensors=(tensor("t", offset=1 << 40),)), "the tensor t would end at byte"),
    "too large": (file(tensors=(tensor("t", (HUGE, 4)),)), "the tensor t would end at byte"),
    "misaligned": (file(tensors=(tensor("t", offset=8),), data=64), "no multiple of the alignment"),
    "no dimensions": (file(tensors=(tensor("t", ()),)), "0 dimensions"),
    "too many dimensions": (file(tensors=(tensor("t", (1,) * 5),)), "5 dimensions"),
    "empty tensor": (file(tensors=(tensor("t", (0, 4)),)), "has the shape (0, 4)"),
    "half a block": (file(tensors=(tensor("t", (2, 4), kind=8),)), "blocks of 32"),
    "tensor type": (file(tensors=(tensor("t", kind=999),)), "tensor type 999"),
}


@pytest.mark.parametrize("name", LIES)
def test_lies_are_named(name: str, read: Callable[[bytes], Header]) -> None:
    content, message = LIES[name]
    with pytest.raises(InputError) as caught:
        read(content)
    assert message in str(caught.value)
    assert "model.gguf" in str(caught.value)


def test_values_of_another_kind(read: Callable[[bytes], Header]) -> None:
    header = read(SOUND)
    for key, kind in (("general.name", int), ("count", str), ("flag", int), ("words", str), ("numbers", list)):
        with pytest.raises(InputError, match=f"{key} is not of the kind"):
            header.require(key, kind)
    assert header.get("nothing", int, 5) == 5
    with pytest.raises(InputError, match="the metadata have no nothing"):
        header.require("nothing", int)


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.gguf", tmp_path):
        with pytest.raises(InputError, match="file not found"):
            read_header(path)
