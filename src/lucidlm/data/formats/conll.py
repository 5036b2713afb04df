"""Files with a word and its tags in each line, as CoNLL's shared tasks have them: a row for each sentence.

Columns are parted by tabs if a line has one, else by spaces. The first is the word, the last its tag; those between are
not read. An empty line ends a sentence, and so does a line of `-DOCSTART-`, which begins a document.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO

from lucidlm.data.document import Document, Reading
from lucidlm.data.formats.encoding import TextFile
from lucidlm.data.formats.rows import row_document

BEGINS_DOCUMENT = "-DOCSTART-"


def read_conll(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document]:
    """Yield a document for each sentence, with the fields of `tagged_sentences`."""
    for row in tagged_sentences(_lines(TextFile(file, name, reading))):
        yield from row_document(row, f"{name}:{row['lines'][0]}", reading)


def _lines(source: TextFile) -> Iterator[tuple[int, str]]:
    for number, line, bad in source.lines():
        if bad is not None:
            source.reject(bad[0], number, bad[1])
            line = "\ufffd"  # a word without a tag, so that its sentence is left out too
        yield number, line


def tagged_sentences(lines: Iterable[tuple[int, str]]) -> Iterator[dict[str, Any]]:
    """Yield the sentences of numbered lines.

    Each has the fields `tokens`, `tags` (None for a line of one column) and `lines`, the number of each token's line.
    """
    rows: list[tuple[str, str | None, int]] = []
    for number, line in chain(lines, [(0, "")]):
        # No other white space parts columns: U+3000 is a word in Chinese files.
        line = line.strip(" \r\n")
        cells = [cell.strip(" ") for cell in line.split("\t")] if "\t" in line else re.split(" +", line)
        if line.strip("\t") and cells[0] != BEGINS_DOCUMENT:
            rows.append((cells[0], cells[-1] if len(cells) > 1 else None, number))
        elif rows:
            tokens, tags, numbers = zip(*rows, strict=True)
            yield {"tokens": list(tokens), "tags": list(tags), "lines": list(numbers)}
            rows = []
