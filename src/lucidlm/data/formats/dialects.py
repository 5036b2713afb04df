"""How a table of text is written: which character parts the columns, and what quotes mean.

Where columns are parted by something that can be typed, quotes are RFC 4180's. Tabs are seldom typed, so tables parted
by tabs are often written without quoting, and a text that begins with a quote then means it. Both kinds are told apart
row by row: pandas, Excel and the like quote a cell only if it holds a tab, a quote (which is doubled) or a line end, or
else they quote all cells of a kind, the header's too.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from lucidlm.core.progress import log
from lucidlm.data.formats.encoding import Line

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
LONGEST_ROW = 64_000_000
"""Characters: a row that is longer is taken for a mistake (an open quote, a file without line ends)."""
LONGEST_QUOTED = 1_000_000
"""Characters that are looked through for the end of a quote where quotes may also be text."""
SAMPLE = 200
"""Lines that a table's form is recognised by."""
SEPARATOR = re.compile(r'"?sep=([^\s"]|\t)"?\1*\s*', re.IGNORECASE)
QUOTED = re.compile(r'"(?:[^"]++|"")*+"')
PLAIN = re.compile(r"[^\t\r\n]*")

Rows = Iterator[tuple[int, list[str] | str]]
"""The number of each row's first line, and its cells, or what is wrong with it."""


class Lines(Iterator[str]):
    """A table's lines, which can be looked at before they are taken.

    `number` is that of the line taken last; `undecodable` holds those taken that are not in the file's encoding.
    """

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines, self._ahead = lines, deque[Line]()
        self.number = 0
        self.undecodable: list[tuple[int, UnicodeDecodeError, int]] = []

    def __next__(self) -> str:
        self.number, line, bad = self._ahead.popleft() if self._ahead else next(self._lines)
        if bad is not None:
            self.undecodable.append((self.number, *bad))
        return line

    def ahead(self, most: int) -> list[str]:
        """Return the next lines, at most so many."""
        while len(self._ahead) < most and (line := next(self._lines, None)) is not None:
            self._ahead.append(line)
        return [line for _, line, _ in list(self._ahead)[:most]]


def find_delimiter(lines: Lines, usual: str, wanted: Sequence[str]) -> str:
    """Return what parts the columns: what Excel's line `sep=;` says, which is taken, or what parts the header.

    Where several characters part it, that one does which gives the fields wanted, then the same number of columns in
    the most lines; `usual` does where nothing tells, or nothing parts the header: a table of one column.
    """
    csv.field_size_limit(LONGEST_ROW)
    while (first := lines.ahead(1)) and not first[0].strip():
        next(lines)
    if first and (said := SEPARATOR.fullmatch(first[0])):
        next(lines)
        return said[1]
    sample = lines.ahead(SAMPLE)
    found: dict[tuple[int, int, bool, bool, int], str] = {}
    for delimiter in DELIMITERS:
        rows = _as_they_stand(sample) if delimiter == "\t" else _parsed(sample, delimiter)[0]
        header = rows[0][1] if rows else []
        if len(header) < 2:
            continue
        fitting = sum(size for size, cells in rows if fits(cells, len(header)))
        prose = any(cell.startswith(" ") for cell in header)  # a comma or semicolon within a name
        names = {cell.strip() for cell in header}
        found[len(names & set(wanted)), fitting, not prose, delimiter == usual, len(header)] = delimiter
    return found[max(found)] if found else usual


def _parsed(sample: Sequence[str], delimiter: str) -> tuple[list[tuple[int, list[str]]], bool]:
    """Return the rows of some lines, with how many lines each takes, and whether all lines are valid.

    They are the rows up to the first that is not; one that the last line leaves open is valid if more lines follow.
    """
    table, rows, taken = csv.reader(sample, delimiter=delimiter, strict=True), [], 0
    try:
        for cells in table:
            if any(map(str.strip, cells)):
                rows.append((table.line_num - taken, cells))
            taken = table.line_num
    except csv.Error:
        return rows, table.line_num == len(sample) == SAMPLE
    return rows, True


def _as_they_stand(sample: Sequence[str]) -> list[tuple[int, list[str]]]:
    """Return the rows of some lines with tabs, in which quotes are text."""
    return [(1, line.rstrip("\r\n").split("\t")) for line in sample if line.strip()]


def quoted_rows(lines: Lines, delimiter: str) -> Rows:
    """Yield the rows of a table with RFC 4180's quotes, which may hold delimiters, line ends and doubled quotes.

    If a space follows each delimiter of the header, it is part of no cell.
    """
    _, header = next(iter(_parsed(lines.ahead(SAMPLE), delimiter)[0]), (0, []))
    spaced = len(header) > 1 and all(cell.startswith(" ") for cell in header[1:])
    table = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=spaced)
    while True:
        first = lines.number + 1
        try:
            cells = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            lost = lines.number - first + 1
            why = "a quote within quotes has to be doubled"
            if lost > 1:
                why = f"it takes up {lost:,} lines: is a quote left open?"
            yield first, f"is not a valid row ({error}; {why})"
        else:
            yield first, cells


class Scanned(NamedTuple):
    """A row that is quoted: its cells, where in the text it ends, and whether a cell in quotes needs them."""

    cells: list[str]
    end: int
    needed: bool


def tab_rows(lines: Lines, name: str) -> Rows:
    """Yield the rows of a table whose columns are parted by tabs.

    If quotes are all that makes rows of the first lines, or stand around all names of the header, they are RFC 4180's. Else
    a cell that begins with a quote is quoted if the quote ends with the cell and is needed, since it holds a tab, a line
    end or a doubled quote, or if quotes stand around all cells of a kind. Else it is text. Lines that are rows as they
    stand are never joined. The first cell of either kind is said.
    """
    sample = lines.ahead(SAMPLE)
    if _quotes_make_rows(sample):
        yield from quoted_rows(lines, "\t")
        return
    around = _quotes_are_around(sample)
    said: set[str] = set()
    width = 0
    for line in lines:
        first, text = lines.number, line.rstrip("\r\n")
        cells = text.split("\t")
        if text.startswith('"') or '\t"' in text:
            found, more = _quoted(line, cells, width, lines, around)
            kind = "text" if found is None else "quotes"
            if width and kind not in said:
                said.add(kind)
                log(f"{name}:{first}: the quotes that begin a cell here are read as {kind}, and others like them")
            cells = cells if found is None else found
            for _ in range(more):
                next(lines)
        if not width and text.strip():
            width = len(cells)
        yield first, cells


def _quoted(line: str, cells: list[str], width: int, lines: Lines, around: bool) -> tuple[list[str] | None, int]:
    """Return the cells of a row that is quoted and the number of lines it goes on for; None if its quotes are text."""
    as_it_stands, more = fits(cells, width), 0
    try:
        found = _scan(line)
    except EOFError:
        following = next((text for text in lines.ahead(10) if text.strip()), None)
        if as_it_stands and (following is None or fits(following.rstrip("\r\n").split("\t"), len(cells))):
            return None, 0
        found, more = _scan_on(line, lines)
    if found is None or (width and not fits(found.cells, width)) or not (found.needed or around or not width):
        return None, 0
    return found.cells, more


def fits(cells: Sequence[str], width: int) -> bool:
    """Return whether a row has as many columns; empty ones past them are made by delimiters at the line's end."""
    return len(cells) == width or (len(cells) > width and not any(cells[width:]))


def _scan(text: str) -> Scanned | None:
    """Take the first row of `text` as a quoted one; None if it is not.

    Raises
    ------
    EOFError: the text ends within quotes.
    """
    cells, place, needed = [], 0, False
    while True:
        if text.startswith('"', place):
            if (match := QUOTED.match(text, place)) is None:
                raise EOFError
            cell, end = match[0][1:-1].replace('""', '"'), match.end()
            needed = needed or not cell or bool(re.search('["\t\r\n]', cell))
        else:
            match = PLAIN.match(text, place)
            cell, end = match[0], match.end()  # pyright: ignore[reportOptionalSubscript, reportOptionalMemberAccess]
        cells.append(cell)
        if end == len(text) or text[end] in "\r\n":
            return Scanned(cells, end, needed)
        if text[end] != "\t":
            return None
        place = end + 1


def _scan_on(line: str, lines: Lines) -> tuple[Scanned | None, int]:
    """Take `line` and as many after it as it goes on for as a quoted row; return that and how many those are."""
    most = 16
    while True:
        more = lines.ahead(most)
        text = line + "".join(more)
        try:
            found = _scan(text)
        except EOFError:
            if len(more) < most or len(text) > LONGEST_QUOTED:
                return None, 0
            most *= 4
            continue
        if found is None:
            return None, 0
        ends = accumulate(map(len, more), initial=len(line))
        return found, next((taken for taken, end in enumerate(ends) if end > found.end), len(more))


def _quotes_make_rows(sample: Sequence[str]) -> bool:
    """Return whether the first lines are rows by RFC 4180's quotes, and are none, or begin with quoted names, without."""
    rows, valid = _parsed(sample, "\t")
    found, stand = [cells for _, cells in rows], [cells for _, cells in _as_they_stand(sample)]
    if not (valid and found and all(fits(cells, len(found[0])) for cells in found)):
        return False
    return all(map(QUOTED.fullmatch, stand[0])) or not all(fits(cells, len(stand[0])) for cells in stand)


def _quotes_are_around(sample: Sequence[str]) -> bool:
    """Return whether quotes stand around all cells of a kind, whatever they hold.

    Those of a column (in three rows at least), or, as Excel has it, those that hold a comma.
    """
    stand = [cells for _, cells in _as_they_stand(sample)]
    rows = [cells for cells in stand[1:] if len(cells) == len(stand[0])]
    if len(rows) >= 3 and any(all(map(QUOTED.fullmatch, column)) for column in zip(*rows, strict=True)):
        return True
    cells = [cell for row in rows for cell in row]
    quoted = [cell for cell in cells if QUOTED.fullmatch(cell)]
    commas = [cell for cell in cells if "," in cell]
    return bool(commas) and all(map(QUOTED.fullmatch, commas)) and all("," in c or '""' in c[1:-1] for c in quoted)
