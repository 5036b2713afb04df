"""Readers, one per file format: each takes an open binary file and yields documents, a bounded piece at a time.

Nothing here is ever guessed: bytes that are not text in the encoding asked for, rows that are not rows and fields that
are missing are named by file and line, and stop the reading or are counted, as `Reading.on_error` says.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import pyarrow
import pyarrow.parquet

from lucidlm.core.errors import InputError
from lucidlm.data.compression import COMPRESSIONS, decompress
from lucidlm.data.document import Document, Reading
from lucidlm.data.html import html_to_text

PIECE = 1_000_000
"""Characters: a longer text file is read as several documents of at most this size."""
LONGEST_ROW = 64_000_000
"""Characters: a row that is longer is taken for a mistake (an open quote, a file without line ends)."""
LONGEST_JSON = 256_000_000
"""Bytes: a .json is read whole, since nothing in it says where a row ends before it has been read."""

SURROGATES = re.compile("[\ud800-\udfff]")

Format = Callable[[BinaryIO, str, Reading], Iterator[Document]]


def read_file(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document]:
    """Yield the documents of an open file, choosing the format by `name`'s extensions (`reviews.jsonl.gz`).

    Raises
    ------
    InputError: the extension is not known, or a row cannot be used and `reading.on_error` is "stop".
    """
    suffixes = _suffixes(name)
    if suffixes[-1] in COMPRESSIONS:
        file = decompress(file, suffixes.pop(), name)
    if (read := FORMATS.get(suffixes[-1])) is None:
        raise InputError("is of a type that is not known", where=name, fix=f"Known are {known_extensions()}.")
    return read(file, name, reading)


def is_known(name: str) -> bool:
    """Return whether `read_file` knows what to do with a file of this name."""
    suffixes = _suffixes(name)
    return (suffixes[-2] if suffixes[-1] in COMPRESSIONS else suffixes[-1]) in FORMATS


def known_extensions() -> str:
    """Return the extensions `read_file` knows, for a message."""
    return f"{', '.join(FORMATS)}, and {', '.join(COMPRESSIONS)} of these"


def _suffixes(name: str) -> list[str]:
    return ["", "", *(suffix.lower() for suffix in PurePosixPath(name).suffixes)]


def read_text(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document]:
    """Yield a text file as one document or, past `PIECE` characters, as pieces cut at empty lines.

    Where there is no empty line in a piece it is cut at a line's end, a space, or wherever it must.
    """
    decoder, buffer, line, cut_before = codecs.getincrementaldecoder(_codec(reading))(), "", 1, False
    consumed, lines_consumed = 0, 0
    while True:
        chunk = file.read(PIECE)
        pending = decoder.getstate()[0]
        try:
            buffer += decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            _reject_bytes(reading, name, error, lines_consumed + 1, consumed - len(pending))
            return
        consumed, lines_consumed = consumed + len(chunk), lines_consumed + chunk.count(b"\n")
        while len(buffer) > PIECE:
            cut = _cut(buffer)
            if text := buffer[:cut].strip():
                yield Document(text, f"{name}:{line}")
            line, buffer, cut_before = line + buffer.count("\n", 0, cut), buffer[cut:], True
        if not chunk:
            break
    if text := buffer.strip():
        yield Document(text, f"{name}:{line}" if cut_before else name)


def _cut(text: str) -> int:
    for boundary in ("\n\n", "\r\n\r\n", "\n", " ", ""):
        if (place := text.rfind(boundary, 0, PIECE)) > 0:
            return place + len(boundary)
    return PIECE


def read_html(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document]:
    """Yield a page as one document. If it is not text in the encoding asked for, the one it declares is tried."""
    page = file.read()
    try:
        html = page.decode(_codec(reading))
    except UnicodeDecodeError as error:
        declared = re.search(rb"<meta[^>]{0,200}charset=[\"']?([\w-]+)", page[:2048], re.IGNORECASE)
        try:
            html = page.decode(declared[1].decode()) if declared else None
        except (UnicodeDecodeError, LookupError):
            html = None
        if html is None:
            _reject_bytes(reading, name, error)
            return
    if text := html_to_text(html):
        yield Document(text, name)


def read_json_lines(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document]:
    """Yield a document for each line, a JSON object; empty lines are passed over."""
    for number, line, bad in _lines(file, name, reading):
        where = f"{name}:{number}"
        if bad is not None:
            _reject_bytes(reading, name, bad[0], number, bad[1])
        elif line.strip():
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                reading.reject("broken JSON", f"is not valid JSON ({error})", where=where)
                continue
            yield from row_document(row, where, reading)


def read_json(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document]:
    """Yield a document for each object of a JSON file: one, a list of them, or several one after the other."""
    data = file.read(LONGEST_JSON + 1)
    if len(data) > LONGEST_JSON:
        fix = "Make it JSON lines, which are read one by one: jq -c '.[]' FILE.json > FILE.jsonl."
        raise InputError(f"is a JSON file of more than {LONGEST_JSON / 1e6:.0f} MB", where=name, fix=fix)
    try:
        text = data.decode(_codec(reading))
    except UnicodeDecodeError as error:
        _reject_bytes(reading, name, error)
        return
    del data
    line, position = 1, 0
    try:
        for row, start, end in _json_values(text):
            line, position = line + text.count("\n", position, start), start
            yield from row_document(row, f"{name}:{line}", reading)
            line, position = line + text.count("\n", start, end), end
    except (json.JSONDecodeError, RecursionError) as error:
        line = getattr(error, "lineno", line)
        reading.reject(
            "broken JSON", f"is not valid JSON ({error}); nothing after this can be read", where=f"{name}:{line}"
        )


def _json_values(text: str) -> Iterator[tuple[Any, int, int]]:
    """Yield each element of the list in `text`, or each value if it holds no list, with where it starts and ends."""
    decoder, blank = json.JSONDecoder(), re.compile(r"\s*")
    position = blank.match(text).end()  # type: ignore[union-attr]
    listed = text.startswith("[", position)
    position = blank.match(text, position + listed).end()  # type: ignore[union-attr]
    if listed and text.startswith("]", position):
        return
    while position < len(text):
        value, end = decoder.raw_decode(text, position)
        yield value, position, end
        position = blank.match(text, end).end()  # type: ignore[union-attr]
        if listed and text.startswith("]", position):
            if text[position + 1 :].strip():
                raise json.JSONDecodeError("more text after the list", text, position + 1)
            return
        if listed and not text.startswith(",", position):
            raise json.JSONDecodeError("Expecting ',' delimiter", text, position)
        position = blank.match(text, position + listed).end()  # type: ignore[union-attr]
    if listed:
        raise json.JSONDecodeError("Expecting value", text, position)


def read_csv(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document]:
    """Yield a document for each row of a CSV file with a header (RFC 4180: quotes may hold commas and line ends)."""
    yield from _read_table(file, name, reading, delimiter=",")


def read_tsv(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document]:
    """Yield a document for each row of a TSV file with a header (as IANA has it: quotes mean nothing)."""
    yield from _read_table(file, name, reading, delimiter="\t", quoting=csv.QUOTE_NONE)


def _read_table(file: BinaryIO, name: str, reading: Reading, **dialect: Any) -> Iterator[Document]:
    csv.field_size_limit(LONGEST_ROW)
    undecodable: list[tuple[int, UnicodeDecodeError, int]] = []

    def lines() -> Iterator[str]:
        for number, line, bad in _lines(file, name, reading):
            if bad is not None:
                undecodable.append((number, *bad))
            yield line

    table = csv.reader(lines(), strict=True, **dialect)
    header: list[str] = []
    while True:
        first = table.line_num + 1
        where = f"{name}:{first}"
        try:
            cells = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            lost = table.line_num - first + 1
            what = f"is not a valid row ({error}; it takes up {lost:,} lines: is a quote left open?)"
            reading.reject("broken row", what, where=where, rows=lost)
            undecodable.clear()
            continue
        if undecodable:
            number, error, offset = undecodable[0]
            _reject_bytes(reading, name, error, number, offset)
            undecodable.clear()
        elif not header:
            header = cells
            for wanted in filter(None, (reading.text_field, reading.label_field)):
                if wanted not in header:
                    what = f'field "{wanted}" is missing (fields found: {", ".join(header)})'
                    fix = "The first line has to name the fields; choose with --text-field and --label-field."
                    raise InputError(what, where=where, fix=fix)
        elif len(cells) != len(header) and cells:
            what = f"has {len(cells)} columns where the header has {len(header)}"
            reading.reject("wrong number of columns", what, where=where)
        elif cells:
            yield from row_document(dict(zip(header, cells, strict=True)), where, reading)


def read_parquet(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document]:
    """Yield a document for each row of a parquet file; `where` counts rows from 1."""
    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=256):
            for row in batch.to_pylist():
                number += 1
                yield from row_document(row, f"{name}:{number}", reading)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"is not a sound parquet file ({error})", where=name, fix="Fetch or make it again.") from error


FORMATS: dict[str, Format] = {
    ".txt": read_text,
    ".md": read_text,
    ".html": read_html,
    ".htm": read_html,
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
}


def _codec(reading: Reading) -> str:
    """Return the Python codec to decode with; for UTF-8 the one that drops a byte-order mark."""
    try:
        name = codecs.lookup(reading.encoding).name
    except LookupError:
        raise InputError(
            f"there is no encoding called {reading.encoding!r}",
            where="--encoding",
            fix="Common ones are utf-8, gb18030, big5, utf-16, latin-1.",
        ) from None
    return "utf-8-sig" if name == "utf-8" else name


Line = tuple[int, str, tuple[UnicodeDecodeError, int] | None]
"""A line's number, its text and, if it is not text in the encoding asked for, the error and the line's byte offset."""


def _lines(file: BinaryIO, name: str, reading: Reading) -> Iterator[Line]:
    codec, offset = _codec(reading), 0
    if codec.startswith(("utf-16", "utf-32")):  # their line ends are several bytes
        text = io.TextIOWrapper(file, encoding=codec, newline="\n")
        try:
            for number, line in enumerate(text, 1):
                yield number, line, None
        except UnicodeDecodeError as error:
            fix = "Pass its encoding with --encoding."
            raise InputError(f"is not text in {reading.encoding}", where=name, fix=fix) from error
        finally:
            text.detach()  # it would close the file, which is not its own
        return
    number = 0
    while data := file.readline(4 * LONGEST_ROW):
        number += 1
        if len(data) == 4 * LONGEST_ROW:
            raise InputError(
                f"is a line of more than {len(data) / 1e6:.0f} MB",
                where=f"{name}:{number}",
                fix="Put one row on each line.",
            )
        try:
            yield number, data.decode(codec), None
        except UnicodeDecodeError as error:
            yield number, data.decode(codec, "replace"), (error, offset)
        offset, codec = offset + len(data), codec.removesuffix("-sig")


def _reject_bytes(reading: Reading, name: str, error: UnicodeDecodeError, line: int = 1, offset: int = 0) -> None:
    """Reject the bytes of `error`, whose object begins at the given line and byte offset of the file."""
    line, byte = line + error.object.count(b"\n", 0, error.start), error.object[error.start]
    what = f"is not text in {reading.encoding}: byte 0x{byte:02x} at offset {offset + error.start:,}"
    fix = "Pass the file's encoding with --encoding (gb18030, big5, latin-1 …)"
    reading.reject("wrong encoding", what, where=f"{name}:{line}", fix=fix)


def row_document(row: Any, where: str, reading: Reading) -> Iterator[Document]:
    """Yield the row (an object with fields) as a document, or reject it."""
    if not isinstance(row, dict):
        reading.reject("not an object", f"holds a {type(row).__name__}, not an object with fields", where=where)
        return
    if reading.text_field is None:
        yield Document("", where, meta=row)
        return
    for name in filter(None, (reading.text_field, reading.label_field)):
        if row.get(name) is None or (name == reading.label_field and row[name] == ""):
            what = "is empty" if name in row else f"is missing (fields found: {', '.join(row) or 'none'})"
            reading.reject(f'missing field "{name}"', f'field "{name}" {what}', where=where)
            return
    text = row.pop(reading.text_field)
    if not isinstance(text, str):
        what = f'field "{reading.text_field}" holds a {type(text).__name__}, not a string'
        reading.reject("text is not a string", what, where=where)
        return
    if not text.isascii() and SURROGATES.search(text):
        reading.reject(
            "broken character",
            f'field "{reading.text_field}" holds half of a character (a lone surrogate)',
            where=where,
        )
        return
    label = None if reading.label_field is None else row.pop(reading.label_field)
    if isinstance(label, (dict, list)):
        reading.reject(
            "label is not a value", f'field "{reading.label_field}" holds a {type(label).__name__}', where=where
        )
        return
    yield Document(text, where, None if label is None else str(label), row)
