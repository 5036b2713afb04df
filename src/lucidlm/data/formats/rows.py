"""Rows of fields, whatever file they stood in: what in one is missing, what a label says, and a row as a document."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from lucidlm.data.document import Document, Reading

SURROGATES = re.compile("[\ud800-\udfff]")
MISSING = frozenset({"nan", "-nan", "null", "<na>", "n/a", "#n/a"})
"""What programs write where a table holds nothing, in any case. Not among them is "none", which many data have as a
label (no stance, no entity); "NA" is missing as R writes it, in capitals only."""
WHOLE = re.compile(r"[+-]?\d+\.0+")


def is_missing(value: Any) -> bool:
    """Return whether a field holds nothing: null, or a number that is none (NaN)."""
    return value is None or (isinstance(value, float) and math.isnan(value))


@lru_cache(maxsize=1000, typed=True)
def label_text(value: Any) -> str | None:
    """Return a label, a value that is no object or list, as text; None if it is missing.

    Numbers that are whole lose their fraction, written as text too: a column of 0 and 1 in which one is missing becomes
    1.0 and 0.0 in pandas and whatever it writes.
    """
    text = "" if value is None else str(value).strip()
    if not text or text.casefold() in MISSING or text == "NA":
        return None
    return text.partition(".")[0] if WHOLE.fullmatch(text) else text


def what_is_missing(name: str, fields: Mapping[str, Any]) -> str:
    """Return what a message says of a field that is missing, or holds what stands for nothing."""
    if name not in fields:
        return f'field "{name}" is missing (fields found: {", ".join(fields) or "none"})'
    held = "" if fields[name] is None else str(fields[name]).strip()
    return f'field "{name}" holds {held}, which stands for a missing value' if held else f'field "{name}" is empty'


def repeated(names: Sequence[str]) -> tuple[str, int, int] | None:
    """Return the first name that stands twice, and its two places, counted from 1; None if each stands once."""
    if len(set(names)) == len(names):
        return None
    places: dict[str, int] = {}
    for place, name in enumerate(names, 1):
        if (first := places.setdefault(name, place)) != place:
            return name, first, place
    return None


def row_document(row: Any, where: str, reading: Reading) -> Iterator[Document]:
    """Yield the row (an object with fields) as a document, or reject it."""
    if not isinstance(row, dict):
        reading.reject("not an object", f"holds a {type(row).__name__}, not an object with fields", where=where)
        return
    if reading.text_field is None:
        yield Document("", where, meta=row)
        return
    text, label = row.get(reading.text_field), row.get(reading.label_field)
    if is_missing(text):
        reading.reject(f'missing field "{reading.text_field}"', what_is_missing(reading.text_field, row), where=where)
        return
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
    if isinstance(label, (dict, list)):
        what = f'field "{reading.label_field}" holds a {type(label).__name__}'
        reading.reject("label is not a value", what, where=where)
        return
    if reading.label_field is not None and (label := label_text(label)) is None:
        what = what_is_missing(reading.label_field, row)
        reading.reject(f'missing field "{reading.label_field}"', what, where=where)
        return
    for name in (reading.text_field, reading.label_field):
        row.pop(name, None)
    yield Document(text, where, label, row)
