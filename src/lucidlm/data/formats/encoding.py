"""Decode text files: choose the encoding, and yield the lines in it.

An encoding named by the user is always used. With "auto" it is that of the byte-order mark, else UTF-8. A file that is not
UTF-8 may be UTF-16 without a mark or GB18030 (a superset of GBK and GB2312): each is tried, and used, with a message, if
the result looks like text. Nothing else is tried, since single-byte encodings decode any bytes: such a file is refused
with its first wrong byte, and so is a file whose encoding changes after the beginning.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO

from lucidlm.core.errors import InputError
from lucidlm.core.progress import log
from lucidlm.data.document import Reading

HEAD = 1 << 20
"""Bytes used to detect the encoding; also the size of later reads."""
LONGEST_LINE = 256_000_000
"""Bytes: a longer line is treated as an error (a file without line ends)."""

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16's, which is a prefix of it
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    ("\ufeff".encode("gb18030"), "gb18030"),
)
FREQUENT = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过后作里"
    "用道行所然家事成方多经去法学如都同现没动面看好天分还进小部其些主样心前很最着与无日月山风水云花春何"
    "這個們來為說時會對國後裡經學現沒動還進樣與無風雲過"
)
"""Characters frequent in any Chinese text, and rare where bytes of another encoding are decoded as Chinese."""
FAMILIAR = 0.08
"""Least share of frequent characters among the letters: it is 0.15 to 0.5 in Chinese, zero in 17 other encodings."""
TRIED = 100_000
"""Characters that are examined when an encoding is tried."""
WIDE = ("utf-16", "utf-32")
"""Encodings whose line ends are several bytes."""
LINE = re.compile("[^\r\n]*(?:\r?\n|\r(?=[^\n]))")

Line = tuple[int, str, tuple[UnicodeDecodeError, int] | None]
"""A line's number, its text with its line end, and, if it cannot be decoded, the error and the line's byte offset."""


class TextFile:
    """An open text file with its encoding.

    Parameters
    ----------
    name: for messages.
    declared: the encoding declared in the text itself, as in HTML pages; it is tried after UTF-8.

    Raises
    ------
    InputError: the encoding that the user named does not exist, or the file's byte-order mark contradicts it.
    """

    def __init__(self, file: BinaryIO, name: str, reading: Reading, declared: str | None = None) -> None:
        self._file, self.name, self._reading = file, name, reading
        head = file.read(HEAD)
        self.codec, self._start = _choose(head, name, reading.encoding, declared)
        self._head = head[self._start :]

    def chunks(self) -> Iterator[bytes]:
        """Yield the file's bytes, without a byte-order mark."""
        if self._head:
            yield self._head
        while chunk := self._file.read(HEAD):
            yield chunk

    def lines(self) -> Iterator[Line]:
        """Yield each line with its line end: LF, CR or CR LF."""
        if self.codec.startswith(WIDE):
            for number, text in enumerate(self._wide_lines(), 1):
                yield number, text, None
            return
        offset = 0
        for number, data in enumerate(self._byte_lines(), 1):
            try:
                yield number, data.decode(self.codec), None
            except UnicodeDecodeError as error:
                yield number, data.decode(self.codec, "replace"), (error, offset)
            offset += len(data)

    def _byte_lines(self) -> Iterator[bytes]:
        held: list[bytes] = []
        number, size = 1, 0
        for chunk in self.chunks():
            held.append(chunk)
            size += len(chunk)
            if b"\n" not in chunk and b"\r" not in chunk:
                if size > LONGEST_LINE:
                    self._too_long(number)
                continue
            lines = b"".join(held).splitlines(keepends=True)  # of bytes: at LF, CR and CR LF only
            held = [] if chunk.endswith(b"\n") else [lines.pop()]  # a CR at the end of the chunk may be half of a CR LF
            size = len(held[0]) if held else 0
            number += len(lines)
            yield from lines
        yield from b"".join(held).splitlines(keepends=True)

    def _wide_lines(self) -> Iterator[str]:
        rest, number = "", 1
        try:
            for text in codecs.iterdecode(self.chunks(), self.codec):
                rest, end = rest + text, 0
                for line in LINE.finditer(rest):
                    yield line[0]
                    number, end = number + 1, line.end()
                rest = rest[end:]
                if len(rest) > LONGEST_LINE:
                    self._too_long(number)
        except UnicodeDecodeError as error:
            fix = "Pass its encoding with --encoding."
            raise InputError(f"is not text in {self.codec}", where=f"{self.name}:{number}", fix=fix) from error
        if rest:
            yield rest

    def _too_long(self, number: int) -> None:
        what = f"is a line of more than {LONGEST_LINE / 1e6:.0f} MB"
        raise InputError(what, where=f"{self.name}:{number}", fix="Put one row on each line.")

    def reject(self, error: UnicodeDecodeError, line: int = 1, offset: int = 0) -> None:
        """Reject the bytes of `error`, whose object starts at the given line and byte offset (after any byte-order mark)."""
        line, byte = line + error.object.count(b"\n", 0, error.start), error.object[error.start]
        place = f"byte 0x{byte:02x} at offset {self._start + offset + error.start:,}"
        fix = "Pass the file's encoding with --encoding (gb18030, big5, latin-1 …)"
        what = f"is not text in {self.codec}: {place}"
        self._reading.reject("wrong encoding", what, where=f"{self.name}:{line}", fix=fix)


def _choose(head: bytes, name: str, asked: str, declared: str | None) -> tuple[str, int]:
    """Return the codec for a file that starts with `head`, and the length of its byte-order mark."""
    mark, marked = next((found for found in MARKS if head.startswith(found[0])), (b"", None))
    if asked != "auto":
        codec = _named(asked)
        if marked is not None and not marked.startswith(codec):
            fix = f"Pass --encoding {marked}, or leave it out."
            raise InputError(f"begins with the byte-order mark of {marked}, not of {asked}", where=name, fix=fix)
        if not codec.startswith(("utf", "ascii")) and not head.isascii() and _decoded(head, "utf-8") is not None:
            log(f"{name}: read as {asked}, as it was asked for, though its bytes are those of utf-8")
        return marked or codec, len(mark)
    if marked is not None:
        return marked, len(mark)
    if _decoded(head, "utf-8") is not None and b"\0" not in head:
        return "utf-8", 0
    if declared is not None and _decoded(head, declared) is not None:
        return declared, 0
    tried = (
        ("utf-16-le", "utf-16-be") if b"\0" in head else ("gb18030",)
    )  # half of a space, digit or line end in UTF-16
    shares = {codec: _familiar(head, codec) for codec in tried}
    best = max(shares, key=shares.__getitem__)
    if shares[best] < FAMILIAR:
        return "utf-8", 0
    log(f"{name}: read as {best}, which its first bytes are text in; --encoding sets another")
    return best, 0


def _named(asked: str) -> str:
    """Return Python's name for an encoding of text."""
    try:
        "a".encode(asked)  # also refuses codecs that are not for text, like base64
    except (LookupError, ValueError):
        fix = "Common ones are utf-8, gb18030, big5, utf-16, latin-1."
        raise InputError(f"there is no encoding called {asked!r}", where="--encoding", fix=fix) from None
    return codecs.lookup(asked).name.removesuffix("-sig")


def _decoded(head: bytes, codec: str) -> str | None:
    """Decode a file's first bytes, whose last character may be cut; None if they are not valid."""
    try:
        return codecs.getincrementaldecoder(codec)().decode(head, final=len(head) < HEAD)
    except (UnicodeDecodeError, LookupError):
        return None


def _familiar(head: bytes, codec: str) -> float:
    """Return the share of letters (in UTF-16, of all characters) that are frequent ones when decoded by `codec`."""
    if (text := _decoded(head, codec)) is None:
        return 0.0
    counts = Counter(text[:TRIED])
    strange = sum(
        number
        for character, number in counts.items()
        if unicodedata.category(character) in ("Cc", "Cn", "Co", "Cs") and not character.isspace()
    )
    if strange > counts.total() / 1000:
        return 0.0
    known = sum(counts[character] for character in FREQUENT)
    if codec == "gb18030":  # ASCII is the same in all encodings it could be confused with
        return known / max(1, sum(number for c, number in counts.items() if not c.isascii() and c.isalpha()))
    return (known + sum(number for character, number in counts.items() if character.isascii())) / counts.total()
