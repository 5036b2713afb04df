"""Tables of text, .csv and .tsv, as spreadsheets and programs write them: a document for each row.

The first line names the columns. Blank lines and rows of empty cells are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from lucidlm.core.errors import InputError
from lucidlm.core.progress import log
from lucidlm.data.document import Document, Reading
from lucidlm.data.formats.dialects import DELIMITERS, Lines, find_delimiter, quoted_rows, tab_rows
from lucidlm.data.formats.encoding import TextFile
from lucidlm.data.formats.rows import repeated, row_document


def read_csv(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document]:
    """Yield a document for each row of a comma-separated table; another delimiter is detected."""
    yield from _read_table(file, name, reading, ",")


def read_tsv(file: BinaryIO, name: str, reading: Reading) -> Iterator[Document]:
    """Yield a document for each row of a tab-separated table; another delimiter is detected."""
    yield from _read_table(file, name, reading, "\t")


def _read_table(file: BinaryIO, name: str, reading: Reading, usual: str) -> Iterator[Document]:
    text = TextFile(file, name, reading)
    lines = Lines(text.lines())
    delimiter = find_delimiter(lines, usual, [*filter(None, (reading.text_field, reading.label_field))])
    parted = f"columns are parted by {DELIMITERS.get(delimiter, repr(delimiter))}"
    if delimiter != usual:
        log(f"{name}: {parted}")
    header, needed = [], 0
    for number, cells in tab_rows(lines, name) if delimiter == "\t" else quoted_rows(lines, delimiter):
        where = f"{name}:{number}"
        if isinstance(cells, str):
            lines.undecodable.clear()
            reading.reject("broken row", cells, where=where, rows=lines.number - number + 1)
        elif lines.undecodable:
            line, error, offset = lines.undecodable[0]
            lines.undecodable.clear()
            text.reject(error, line, offset)
        elif not any(map(str.strip, cells)):
            pass
        elif not header:
            header = _header(cells, where, reading)
            needed = max(place for place, field in enumerate(header, 1) if field)
        elif len(cells) < needed or (len(cells) > len(header) and any(cells[len(header) :])):
            what = f"has {len(cells)} columns where the header has {len(header)} ({parted})"
            reading.reject("wrong number of columns", what, where=where)
        else:
            row = {field: cell for field, cell in zip(header, cells, strict=False) if field}
            yield from row_document(row, where, reading)


def _header(cells: Sequence[str], where: str, reading: Reading) -> list[str]:
    """Return the names of the columns; "" for one without a name (an index, or a delimiter at the end of lines)."""
    names = [cell.strip() for cell in cells]
    if twice := repeated([name or f"\0{place}" for place, name in enumerate(names)]):
        what = f'columns {twice[1]} and {twice[2]} are both called "{twice[0]}"'
        raise InputError(what, where=where, fix="Give each column a name of its own.")
    for wanted in filter(None, (reading.text_field, reading.label_field)):
        if wanted not in names:
            what = f'field "{wanted}" is missing (fields found: {", ".join(filter(None, names))})'
            fix = "The first line has to name the fields; choose with --text-field and --label-field."
            raise InputError(what, where=where, fix=fix)
    return names
