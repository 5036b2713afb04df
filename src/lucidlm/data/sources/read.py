"""Read text from any source: local or remote files and folders, and sources registered by scheme (`pypi:`, `hf:`).

Everything is streamed: memory does not grow with the corpus, and the order is the same on every machine (folders are
sorted by name). The readers of file formats are in `formats`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import urlsplit

import fsspec

import lucidlm.data.sources.hub
import lucidlm.data.sources.pypi  # noqa: F401  (these two register themselves)
from lucidlm.core.errors import InputError
from lucidlm.data.cleaning.html import Html, plain_fields
from lucidlm.data.document import Document, OnError, Reading, sources
from lucidlm.data.examples.records import Row
from lucidlm.data.formats.readers import is_known, known_extensions, read_file

Opener = Callable[[], BinaryIO]


def read_documents(
    source: str,
    *,
    text_field: str = "text",
    label_field: str | None = None,
    encoding: str = "auto",
    on_error: OnError = "stop",
    skipped: Counter[str] | None = None,
    html: Html = "auto",
) -> Iterator[Document]:
    """Yield the documents of `source`: a file, a folder, a URL that fsspec opens, `pypi:PACKAGE`, `hf:REPO`.

    Each row of a jsonl, csv, tsv or parquet file is a document, and so is each text or HTML file (a text file of more than
    `formats.readers.PIECE` characters becomes several). The other fields of a row are in the document's `meta`.

    Parameters
    ----------
    text_field, label_field: the fields with the text and the label; None: documents have no label.
    encoding: of text files; "auto" detects it, see `lucidlm.data.formats.encoding`.
    on_error: "stop" raises at the first unusable row, "skip" leaves it out and counts it in `skipped`.
    html: "no" keeps the source of .html files; other files are not searched for HTML here.

    Raises
    ------
    InputError: there is no such source, it has no documents, or a row is unusable and `on_error` is "stop".
    """
    reading = Reading(text_field, label_field, encoding, on_error, Counter() if skipped is None else skipped, html)
    left_out = reading.skipped.total()
    empty = True
    for document in _open(source, reading):
        empty = False
        yield document
    if empty:
        reasons = ", ".join(f"{count:,} × {reason}" for reason, count in reading.skipped.items())
        left = f": all was left out ({reasons})" if reading.skipped.total() > left_out else ""
        raise InputError(f"holds no documents{left}", where=source, fix="Pass a source that holds text.")


def read_rows(
    source: str,
    *,
    encoding: str = "auto",
    on_error: OnError = "stop",
    skipped: Counter[str] | None = None,
    html: Html = "auto",
) -> Iterator[Row]:
    """Yield the rows of `source` with all fields; a text or HTML file is a row with the field "text".

    Parameters and errors are those of `read_documents`; under `html` "yes" all strings of a row are converted from HTML.
    """
    reading = Reading(None, None, encoding, on_error, Counter() if skipped is None else skipped, html)
    for document in _open(source, reading):
        found = {"text": document.text, "label": document.label} if document.text else {}
        fields = {**document.meta, **{name: value for name, value in found.items() if value}}
        yield Row(plain_fields(fields) if html == "yes" and not document.plain else fields, document.where)


def _open(source: str, reading: Reading) -> Iterator[Document]:
    if os.path.exists(source):
        return _read_files(_local_files(Path(source)), reading)
    if "://" in source:
        return _read_files(_remote_files(source), reading)
    scheme, colon, rest = source.partition(":")
    if colon and re.fullmatch("[a-z][a-z0-9_-]+", scheme):
        return sources.get(scheme)(rest, reading)
    fix = f"Sources are files, folders, URLs, and {', '.join(f'{name}:…' for name in sources)}."
    raise InputError("there is no such file or folder", where=source, fix=fix)


def _read_files(files: Iterator[tuple[str, Opener | None]], reading: Reading) -> Iterator[Document]:
    for name, opener in files:
        if opener is None:
            reading.skipped["file of a type that is not known"] += 1
            continue
        try:
            file = opener()
        except OSError as error:
            raise InputError(f"cannot be opened ({error.strerror or error})", where=name) from error
        with file:
            yield from read_file(file, name, reading)


def _local_files(path: Path) -> Iterator[tuple[str, Opener | None]]:
    """Yield each file's name and a function to open it (None if its type is not known), folders sorted by name."""
    if not path.is_dir():
        yield str(path), lambda: cast(BinaryIO, path.open("rb"))
        return
    found = False
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            file = Path(folder, name)
            found = found or is_known(name)
            yield str(file), (lambda file=file: cast(BinaryIO, file.open("rb"))) if is_known(name) else None
    if not found:
        raise InputError("holds no files of a known type", where=path, fix=f"Known are {known_extensions()}.")


def _remote_files(url: str) -> Iterator[tuple[str, Opener | None]]:
    try:
        system, path = fsspec.url_to_fs(url)
        paths = sorted(system.find(path)) if system.isdir(path) else [path]
    except (ImportError, ValueError) as error:
        raise InputError(f"cannot be opened ({error})", where=url) from error
    except Exception as error:  # each file system of fsspec raises errors of its own
        raise InputError(
            f"cannot be reached ({error})", where=url, fix="Check the address and your access to it."
        ) from error
    for path in paths:
        name = urlsplit(path).path if "://" in path else path
        known = len(paths) == 1 or is_known(name)
        yield (
            system.unstrip_protocol(path),
            (lambda path=path: cast(BinaryIO, system.open(path, "rb"))) if known else None,
        )
