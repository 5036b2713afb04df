"""Readers, one per file format: each takes an open binary file and yields documents in bounded memory.

Bytes that cannot be decoded, malformed rows, missing fields and duplicate keys are reported by file and line; they stop
the reading or are counted, depending on `Reading.on_error`.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import pyarrow
import pyarrow.parquet

from lucidlm.core.errors import InputError
from lucidlm.data.cleaning.html import html_to_text
from lucidlm.data.document import Document, Reading
from lucidlm.data.formats.compression import COMPRESSIONS, decompress
from lucidlm.data.formats.conll import read_conll
from lucidlm.data.formats.encoding import TextFile
from lucidlm.data.formats.rows import repeated, row_document
from lucidlm.data.formats.tables import read_csv, read_tsv

PIECE = 1_000_000
"""Characters: a longer text file is split into documents of at most this size."""
LONGEST_JSON = 256_000_000
"""Bytes: a .json file is read whole, since the end of a row is known only after parsing it."""

Format = Callable[[BinaryIO, str, Reading], Iterator[Document]]


def read_file(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document]:
    """Yield the documents of an open file, choosing the format by `name`'s extensions (`reviews.jsonl.gz`).

    Raises
    ------
    InputError: the extension is not known, or a row is unusable and `reading.on_error` is "stop".
    """
    suffixes = _suffixes(name)
    if suffixes[-1] in COMPRESSIONS:
        file = decompress(file, suffixes.pop(), name)
    if (read := FORMATS.get(suffixes[-1])) is None:
        raise InputError("is of a type that is not known", where=name, fix=f"Known are {known_extensions()}.")
    return read(file, name, reading)


def is_known(name: str) -> bool:
    """Return whether `read_file` can read a file of this name."""
    suffixes = _suffixes(name)
    return (suffixes[-2] if suffixes[-1] in COMPRESSIONS else suffixes[-1]) in FORMATS


def known_extensions() -> str:
    """Return the extensions that `read_file` can read, for a message."""
    return f"{', '.join(FORMATS)}, and {', '.join(COMPRESSIONS)} of these"


def _suffixes(name: str) -> list[str]:
    return ["", "", *(suffix.lower() for suffix in PurePosixPath(name).suffixes)]


def read_text(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document]:
    """Yield a text file as one document or, past `PIECE` characters, as pieces split at empty lines.

    A piece without an empty line is split at a line end, else at a space, else anywhere.
    """
    source = TextFile(file, name, reading)
    decoder, buffer, line, cut_before = codecs.getincrementaldecoder(source.codec)(), "", 1, False
    consumed, lines_consumed = 0, 0
    for chunk in chain(source.chunks(), [b""]):
        pending = decoder.getstate()[0]
        try:
            buffer += decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            source.reject(error, lines_consumed + 1, consumed - len(pending))
            return
        consumed, lines_consumed = consumed + len(chunk), lines_consumed + chunk.count(b"\n")
        while len(buffer) > PIECE:
            cut = _cut(buffer)
            if text := buffer[:cut].strip():
                yield Document(text, f"{name}:{line + _blank_lines(buffer)}")
            line, buffer, cut_before = line + buffer.count("\n", 0, cut), buffer[cut:], True
    if text := buffer.strip():
        line += _blank_lines(buffer)
        yield Document(text, f"{name}:{line}" if cut_before or line > 1 else name)


def _blank_lines(text: str) -> int:
    """Return how many lines are empty before a text begins."""
    return text.count("\n", 0, len(text) - len(text.lstrip()))


def _cut(text: str) -> int:
    for boundary in ("\n\n", "\r\n\r\n", "\n", " ", ""):
        if (place := text.rfind(boundary, 0, PIECE)) > 0:
            return place + len(boundary)
    return PIECE


def read_html(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document]:
    """Yield a page as one document: its text, or under `html` "no" its source. Its declared encoding is tried too."""
    page = file.read()
    declared = re.search(rb"<meta[^>]{0,200}charset=[\"']?([\w-]+)", page[:2048], re.IGNORECASE)
    source = TextFile(io.BytesIO(page), name, reading, declared[1].decode() if declared else None)
    try:
        html = b"".join(source.chunks()).decode(source.codec)
    except UnicodeDecodeError as error:
        source.reject(error)
        return
    if text := html.strip() if reading.html == "no" else html_to_text(html):
        yield Document(text, name, plain=True)


def read_json_lines(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document]:
    """Yield a document for each line, a JSON object; empty lines are skipped."""
    source = TextFile(file, name, reading)
    decoder, twice = _decoder()
    for number, line, bad in source.lines():
        where = f"{name}:{number}"
        if bad is not None:
            source.reject(bad[0], number, bad[1])
        elif line.strip():
            try:
                row = decoder.decode(line)
            except (ValueError, RecursionError) as error:
                reading.reject("broken JSON", f"is not valid JSON ({error})", where=where)
                twice.clear()
                continue
            if twice:
                _reject_twice(twice, where, reading)
            else:
                yield from row_document(row, where, reading)


def read_json(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document]:
    """Yield a document for each object of a JSON file: a single one, a list, or several in a row."""
    source = TextFile(file, name, reading)
    chunks, size = [], 0
    for chunk in source.chunks():
        chunks.append(chunk)
        if (size := size + len(chunk)) > LONGEST_JSON:
            fix = "Make it JSON lines, which are read one by one: jq -c '.[]' FILE.json > FILE.jsonl."
            raise InputError(f"is a JSON file of more than {LONGEST_JSON / 1e6:.0f} MB", where=name, fix=fix)
    try:
        text = b"".join(chunks).decode(source.codec)
    except UnicodeDecodeError as error:
        source.reject(error)
        return
    del chunks
    decoder, twice = _decoder()
    line, position = 1, 0
    try:
        for row, start, end in _json_values(text, decoder):
            line, position = line + text.count("\n", position, start), start
            if twice:
                _reject_twice(twice, f"{name}:{line}", reading)
            else:
                yield from row_document(row, f"{name}:{line}", reading)
            line, position = line + text.count("\n", start, end), end
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", line)
        reading.reject(
            "broken JSON", f"is not valid JSON ({error}); nothing after this can be read", where=f"{name}:{line}"
        )


def _decoder() -> tuple[json.JSONDecoder, list[str]]:
    """Return a decoder, and the list to which it adds a message for each object with a duplicate key."""
    twice: list[str] = []

    def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs) and (again := repeated([key for key, _ in pairs])):
            twice.append(f'keys {again[1]} and {again[2]} of an object are both called "{again[0]}"')
        return found

    return json.JSONDecoder(object_pairs_hook=object_of), twice


def _reject_twice(twice: list[str], where: str, reading: Reading) -> None:
    """Reject an object for the duplicate keys reported in `twice`, and clear that."""
    what = twice[0]
    twice.clear()
    reading.reject("two keys of one name", what, where=where, fix="Give each key a name of its own")


def _json_values(text: str, decoder: json.JSONDecoder) -> Iterator[tuple[Any, int, int]]:
    """Yield each element of the list in `text`, or each value if it is not a list, with its start and end."""
    blank = re.compile(r"\s*")
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


def read_parquet(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document]:
    """Yield a document for each row of a parquet file; `where` counts rows from 1."""
    number = 0
    try:
        table = pyarrow.parquet.ParquetFile(file)
        if twice := repeated(table.schema_arrow.names):
            what = f'columns {twice[1]} and {twice[2]} are both called "{twice[0]}"'
            raise InputError(what, where=name, fix="Give each column a name of its own.")
        for batch in table.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                number += 1
                yield from row_document(row, f"{name}:{number}", reading)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
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
    ".conll": read_conll,
    ".bio": read_conll,
    ".iob": read_conll,
    ".iob2": read_conll,
}
