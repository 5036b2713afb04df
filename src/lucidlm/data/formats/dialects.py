"""The dialect of a text table: its delimiter, and what quotes mean.

With commas, semicolons or bars, quotes follow RFC 4180. Tabs are rare within text, so tab-separated tables are often
written without quoting, and a quote at the start of a cell is then part of the text. The two are told apart row by row:
pandas, Excel and others quote a cell only if it contains a tab, a quote (which is doubled) or a line end, or else they
quote all cells of a kind, the header included.
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
"""Characters: a longer row is treated as an error (an open quote, a file without line ends)."""
LONGEST_QUOTED = 1_000_000
"""Characters to search for the closing quote where a quote may also be text."""
SAMPLE = 200
"""Lines used to detect the dialect."""
SEPARATOR = re.compile(r'"?sep=([^\s"]|\t)"?\1*\s*', re.IGNORECASE)
QUOTED = re.compile(r'"(?:[^"]++|"")*+"')
PLAIN = re.compile(r"[^\t\r\n]*")

Rows = Iterator[tuple[int, list[str] | str]]
"""For each row the number of its first line, and its cells or an error message."""


class Lines(Iterator[str]):
    """The lines of a table, with lookahead.

    `number` is that of the last line consumed; `undecodable` lists consumed lines that are not in the file's encoding.
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
        """Return up to `most` of the next lines without consuming them."""
        while len(self._ahead) < most and (line := next(self._lines, None)) is not None:
            self._ahead.append(line)
        return [line for _, line, _ in list(self._ahead)[:most]]


def find_delimiter(lines: Lines, usual: str, wanted: Sequence[str]) -> str:
    """Return the delimiter: from Excel's first line `sep=;`, which is consumed, or else the one that splits the header.

    If several characters split it, the choice is the one that yields the wanted fields, then the one with the same number
    of columns in most lines; otherwise it is `usual`, also for a table of one column.
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
        rows = _unquoted_rows(sample) if delimiter == "\t" else _parsed(sample, delimiter)[0]
        header = rows[0][1] if rows else []
        if len(header) < 2:
            continue
        fitting = sum(size for size, cells in rows if fits(cells, len(header)))
        prose = any(cell.startswith(" ") for cell in header)  # a comma or semicolon within a name
        names = {cell.strip() for cell in header}
        found[len(names & set(wanted)), fitting, not prose, delimiter == usual, len(header)] = delimiter
    return found[max(found)] if found else usual


def _parsed(sample: Sequence[str], delimiter: str) -> tuple[list[tuple[int, list[str]]], bool]:
    """Return the rows of some lines, each with its number of lines, and whether all lines are valid.

    Rows end before the first invalid one; a row left open at the end of a full sample counts as valid.
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


def _unquoted_rows(sample: Sequence[str]) -> list[tuple[int, list[str]]]:
    """Return the rows of tab-separated lines, quotes being text."""
    return [(1, line.rstrip("\r\n").split("\t")) for line in sample if line.strip()]


def quoted_rows(lines: Lines, delimiter: str) -> Rows:
    """Yield the rows of a table with RFC 4180's quotes, which may enclose delimiters, line ends and doubled quotes.

    If a space follows every delimiter of the header, spaces after delimiters are skipped.
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


class QuotedRow(NamedTuple):
    """A row parsed with quotes: its cells, where in the text it ends, and whether any cell needs its quotes."""

    cells: list[str]
    end: int
    needed: bool


def tab_rows(lines: Lines, name: str) -> Rows:
    """Yield the rows of a tab-separated table.

    Quotes are RFC 4180's if the first lines are valid rows only with them, or if all names in the header are quoted.
    Otherwise a cell that starts with a quote is quoted if the quote closes at the end of the cell and is needed (for a tab,
    a line end or a doubled quote), or if all cells of a kind are quoted; if not, the quote is text. Lines that are valid
    rows by themselves are never joined. The first cell of either kind is logged.
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
    """Return the cells of a quoted row and how many more lines it takes; None if its quotes are text."""
    fits_unquoted, more = fits(cells, width), 0
    try:
        found = _scan(line)
    except EOFError:
        following = next((text for text in lines.ahead(10) if text.strip()), None)
        if fits_unquoted and (following is None or fits(following.rstrip("\r\n").split("\t"), len(cells))):
            return None, 0
        found, more = _scan_lines(line, lines)
    if found is None or (width and not fits(found.cells, width)) or not (found.needed or around or not width):
        return None, 0
    return found.cells, more


def fits(cells: Sequence[str], width: int) -> bool:
    """Return whether a row has `width` columns; further empty ones come from delimiters at the end of the line."""
    return len(cells) == width or (len(cells) > width and not any(cells[width:]))


def _scan(text: str) -> QuotedRow | None:
    """Parse the first row of `text` with quotes; None if it is not valid.

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
            return QuotedRow(cells, end, needed)
        if text[end] != "\t":
            return None
        place = end + 1


def _scan_lines(line: str, lines: Lines) -> tuple[QuotedRow | None, int]:
    """Parse a quoted row that starts with `line` and continues on later ones; return it and the number of those."""
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
    """Return whether the first lines are valid rows with RFC 4180's quotes, and not without or with a quoted header."""
    rows, valid = _parsed(sample, "\t")
    found, stand = [cells for _, cells in rows], [cells for _, cells in _unquoted_rows(sample)]
    if not (valid and found and all(fits(cells, len(found[0])) for cells in found)):
        return False
    return all(map(QUOTED.fullmatch, stand[0])) or not all(fits(cells, len(stand[0])) for cells in stand)


def _quotes_are_around(sample: Sequence[str]) -> bool:
    """Return whether all cells of a kind are quoted, needed or not.

    A kind is a column (in at least three rows) or, as in Excel, the cells that contain a comma.
    """
    stand = [cells for _, cells in _unquoted_rows(sample)]
    rows = [cells for cells in stand[1:] if len(cells) == len(stand[0])]
    if len(rows) >= 3 and any(all(map(QUOTED.fullmatch, column)) for column in zip(*rows, strict=True)):
        return True
    cells = [cell for row in rows for cell in row]
    quoted = [cell for cell in cells if QUOTED.fullmatch(cell)]
    commas = [cell for cell in cells if "," in cell]
    return bool(commas) and all(map(QUOTED.fullmatch, commas)) and all("," in c or '""' in c[1:-1] for c in quoted)
