"""Forms of data that are common elsewhere and that a task does not read: told by their looks, and named in one message."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from lucidlm.core.errors import InputError
from lucidlm.data.examples.records import Row
from lucidlm.data.examples.squad import is_nested

COLUMNS = (".conll", ".conllu", ".conllx", ".bio", ".iob", ".iob2")
"""Endings of files with a word and its tags in each line."""

TAG = re.compile(r"(?:[BIESLU]-\S+|O)")
TAGGED_LINE = re.compile(rf"\S+[ \t].*?{TAG.pattern}[ \t]*|\S+(?:\t\S+)+")
LOOKED_AT = 20
"""Lines of a text, to tell whether they are words with tags."""

WORDS, TAGS, LABELS = ("tokens", "words"), ("tags", "ner_tags", "pos_tags", "labels"), ("label", "labels")


def refuse_file(wanted: str, fields: Sequence[str], source: str) -> None:
    """Do nothing unless a source is a file with a word and its tags in each line, and the task reads no tags.

    Parameters
    ----------
    wanted: the sentence that says what the task reads.
    fields: those that it knows.

    Raises
    ------
    InputError: it is.
    """
    endings = [ending.lower() for ending in PurePath(source).suffixes[-2:]]
    if "tags" not in fields and any(ending in COLUMNS for ending in endings):
        raise _tagged(wanted, source)


def refuse_form(wanted: str, fields: Sequence[str], row: Row) -> None:
    """Do nothing unless a row, which the task cannot read, is of a form that is common elsewhere.

    Parameters
    ----------
    wanted: the sentence that says what the task reads.
    fields: those that it knows.

    Raises
    ------
    InputError: it is; the message says what the form looks like and which one is wanted.
    """
    held, lists = row.fields, _lists(row.fields)
    if is_nested(row) and re.search('"(?:context|qas)": ', json.dumps(held, default=str)):
        fix = f"That is for question-answering and generative-question-answering; {wanted}"
        raise InputError("holds questions nested in paragraphs, as SQuAD has them", where=row.where, fix=fix)
    if "data" in lists:
        fix = f"Take them out (jq -c '.data[]' FILE.json > FILE.jsonl); {wanted}"
        raise InputError('holds its rows in a list, field "data"', where=row.where, fix=fix)
    lines = [line for line in str(held.get("text", "")).splitlines()[:LOOKED_AT] if line.strip()]
    in_lines = len(lines) > 2 and 2 * sum(bool(TAGGED_LINE.fullmatch(line)) for line in lines) > len(lines)
    cells = list(held.items())
    in_columns = len(cells) > 1 and any(TAG.fullmatch(str(cell)) for cell in cells[-1])
    in_columns = in_columns and len(str(cells[0][1]).split()) == 1
    if "tags" in fields:
        if in_columns:
            fix = "Rename the file so that it ends in .conll: a table's first line would name its columns."
            raise InputError("has a word and its tag in each line of a table", where=row.where, fix=fix)
    elif in_columns or in_lines or (any(map(lists.get, WORDS)) and any(map(lists.get, TAGS))):
        raise _tagged(wanted, row.where)
    called = next((name for name in (*map(row.names.get, LABELS), *LABELS) if name in lists), None)
    if called is not None and "label" in fields:
        what = f'field "{called}" holds a list of labels, and a text has one here'
        raise InputError(what, where=row.where, fix=f"The task multi-label reads several labels a text; {wanted}")


def _lists(fields: Any) -> dict[str, list[Any]]:
    return {name: value for name, value in fields.items() if isinstance(value, list) and value}


def _tagged(wanted: str, where: str) -> InputError:
    fix = f"That is for token-tagging; {wanted}"
    return InputError("has a label for each word, as CoNLL's columns do", where=where, fix=fix)
