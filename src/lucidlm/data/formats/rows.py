"""Rows of fields from any file format: missing values, labels as text, and a row as a document."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from lucidlm.data.document import Document, Reading

SURROGATES = re.compile("[\ud800-\udfff]")
MISSING = frozenset({"nan", "-nan", "null", "<na>", "n/a", "#n/a"})
"""Markers of a missing value, in lower case. "none" is not among them, as it is a label in many data sets (no stance, no
entity); "NA" counts as missing in capitals only, as R writes it."""
WHOLE = re.compile(r"[+-]?\d+\.0+")


def is_missing(value: Any) -> bool:
    """Return whether a value is missing: null or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


@lru_cache(maxsize=1000, typed=True)
def label_text(value: Any) -> str | None:
    """Return a scalar label as text; None if it is missing.

    Whole numbers lose their fraction, also where they are text: pandas turns a column of 0 and 1 with a missing value into
    0.0 and 1.0.
    """
    text = "" if value is None else str(value).strip()
    if not text or text.casefold() in MISSING or text == "NA":
        return None
    return text.partition(".")[0] if WHOLE.fullmatch(text) else text


def describe_missing(name: str, fields: Mapping[str, Any]) -> str:
    """Describe, for a message, a field that is absent, empty, or has a marker of a missing value."""
    if name not in fields:
        return f'field "{name}" is missing (fields found: {", ".join(fields) or "none"})'
    held = "" if fields[name] is None else str(fields[name]).strip()
    return f'field "{name}" holds {held}, which stands for a missing value' if held else f'field "{name}" is empty'


def repeated(names: Sequence[str]) -> tuple[str, int, int] | None:
    """Return the first duplicate name and its two positions, counted from 1; None if all names are distinct."""
    if len(set(names)) == len(names):
        return None
    places: dict[str, int] = {}
    for place, name in enumerate(names, 1):
        if (first := places.setdefault(name, place)) != place:
            return name, first, place
    return None


def row_document(row: Any, where: str, reading: Reading) -> Iterator[Document]:
    """Yield the row (an object with fields) as a document, or reject it if it is unusable."""
    if not isinstance(row, dict):
        reading.reject("not an object", f"holds a {type(row).__name__}, not an object with fields", where=where)
        return
    if reading.text_field is None:
        yield Document("", where, meta=row)
        return
    text, label = row.get(reading.text_field), row.get(reading.label_field)
    if is_missing(text):
        reading.reject(f'missing field "{reading.text_field}"', describe_missing(reading.text_field, row), where=where)
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
        what = describe_missing(reading.label_field, row)
        reading.reject(f'missing field "{reading.label_field}"', what, where=where)
        return
    for name in (reading.text_field, reading.label_field):
        row.pop(name, None)
    yield Document(text, where, label, row)
