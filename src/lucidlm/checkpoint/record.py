"""`lucidlm.json`, the record of a model directory, with the checksums of all files and of itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, get_args

from lucidlm.checkpoint.family import ModelKind
from lucidlm.checkpoint.weights import own_file
from lucidlm.core.errors import InputError
from lucidlm.core.io import check_file, listed_files, read_json
from lucidlm.model.config import Pooling, ProblemType
from lucidlm.tokenize.files import RECORD
from lucidlm.version import __version__

FORMAT = 1


def with_checksum(record: dict[str, Any]) -> dict[str, Any]:
    """Return `record` with format, version and its own checksum added."""
    whole = {"format": FORMAT, "version": __version__, **record}
    return {**whole, "checksum": record_checksum(whole)}


def read_record(directory: Path, verify: bool) -> dict[str, Any]:
    """Return the record of a model directory; if `verify`, check every file against it.

    Raises
    ------
    InputError: it is of another format, has changed or lacks fields; a file has changed.
    """
    record = read_json(directory / RECORD)
    if record.get("format") != FORMAT:
        raise InputError(
            f"has format {record.get('format')!r} (lucidlm {record.get('version', '?')}), this is lucidlm "
            f"{__version__} and reads format {FORMAT}",
            where=directory / RECORD,
            fix="Install the version that wrote it.",
        )
    if record.get("checksum") != record_checksum(record):
        raise InputError(
            "does not match its checksum: it has changed since it was saved",
            where=directory / RECORD,
            fix="Restore it or train again.",
        )
    files = _files(record, directory / RECORD)
    for name, (size, checksum) in files.items() if verify else ():
        check_file(directory / name, size, checksum, record=RECORD, fix="Restore it or train again.")
    return record


def _files(record: dict[str, Any], where: Path) -> dict[str, tuple[int, str]]:
    """Check the fields that are used later, and return the size and checksum of each file."""
    kind, named = record.get("kind"), record.get("labels")
    labelled = isinstance(named, list) and all(isinstance(label, str) for label in named)
    try:
        if (
            kind not in get_args(ModelKind)
            or not all(isinstance(record[part], dict) for part in ("model", "provenance"))
            or (kind in ("classifier", "tagger") and not labelled)
            or (kind == "classifier" and record["pooling"] not in get_args(Pooling))
            or record.get("problem_type") not in (None, *get_args(ProblemType))
        ):
            raise ValueError
        return {own_file(name, where): kept for name, kept in listed_files(record.get("files")).items()}
    except (KeyError, TypeError, ValueError):
        raise InputError(
            "does not say what it should of a model and its files", where=where, fix="Restore it or train again."
        ) from None


def record_checksum(record: dict[str, Any]) -> str:
    """Return the SHA-256 of a record's values, independent of key order and whitespace."""
    values = json.loads(json.dumps({name: value for name, value in record.items() if name != "checksum"}))
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
