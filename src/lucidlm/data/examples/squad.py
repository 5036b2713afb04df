"""SQuAD's published form: articles that hold paragraphs that hold questions, all in one JSON document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lucidlm.core.errors import InputError
from lucidlm.data.examples.records import Row

LEVELS = {"data": "article", "paragraphs": "paragraph", "qas": "question"}
"""The lists that are nested in each other, outermost first, and what each holds."""


def is_nested(row: Row) -> bool:
    """Return whether a row is a whole data set, an article or a paragraph with its questions in a list."""
    return any(isinstance(row.fields.get(name), list) for name in LEVELS)


def flattened(row: Row) -> Iterator[Row]:
    """Yield the questions nested in a row, each with its paragraph's context; a row that nests none is its own.

    Raises
    ------
    InputError: what should be an article, a paragraph or a question is no object.
    """
    if not is_nested(row):
        yield row
        return
    yield from _questions(row.fields, row.where, {}, "")


def _questions(node: Mapping[str, Any], where: str, outer: Mapping[str, Any], place: str) -> Iterator[Row]:
    name = next((name for name in LEVELS if isinstance(node.get(name), list)), None)
    fields = {**outer, **{key: value for key, value in node.items() if key not in LEVELS}}
    if name is None:
        named = f"question {node['id']}" if node.get("id") is not None else place
        yield Row(fields, f"{where}, {named}")
        return
    for number, inner in enumerate(node[name], 1):
        inside = ", ".join(filter(None, (place, f"{LEVELS[name]} {number}")))
        if not isinstance(inner, Mapping):
            raise InputError(f"is a {type(inner).__name__}, not an object", where=f"{where}, {inside}")
        yield from _questions(inner, where, fields, inside)
