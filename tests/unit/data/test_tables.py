"""Tables as spreadsheets and programs write them: delimiters, line ends, quotes, headers."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import pytest

from lucidlm.core.errors import InputError
from lucidlm.data.formats import dialects
from lucidlm.data.sources.read import read_documents, read_rows

TEXTS = [
    "plain",
    "A day, number 0; or 1 | 2",
    'He said "hi", twice',
    '"All of it"',
    "two\nlines",
    "a\ttab",
    " spaces ",
    "中文，“引号”",
    '"',
    'ends in "quotes"',
]


def write(path: Path, data: str | bytes) -> str:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def read(path: Path, data: str | bytes, name: str = "a.csv") -> list[tuple[str, str | None]]:
    source = write(path / name, data)
    return [(document.text, document.label) for document in read_documents(source, label_field="label")]


def made(rows: list[list[str]], **dialect) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, **dialect).writerows(rows)
    return file.getvalue()


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_delimiters_and_line_ends(tmp_path, name, delimiter, end):
    rows = [[text.replace("\n", end), f"x{number}"] for number, text in enumerate(TEXTS)]
    data = made([["text", "label"], *rows], delimiter=delimiter, lineterminator=end)
    assert read(tmp_path, data, name) == [(text, label) for text, label in rows]


@pytest.mark.parametrize("quoting", [csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC, csv.QUOTE_MINIMAL])
@pytest.mark.parametrize("order", [1, -1])
def test_tabs_with_quotes_as_programs_write_them(tmp_path, quoting, order):
    rows = [[text, f"x{number}"][::order] for number, text in enumerate(TEXTS)]
    data = made([["text", "label"][::order], *rows], delimiter="\t", quoting=quoting, lineterminator="\n")
    assert read(tmp_path, data, "a.tsv") == [tuple(row[::order]) for row in rows]


def test_tabs_with_quotes_around_what_holds_a_comma_as_excel_writes_them(tmp_path):
    data = 'text\tlabel\r\n"Well, yes"\t1\r\nno\t0\r\n"5"" disk"\t1\r\n'
    assert read(tmp_path, data, "a.tsv") == [("Well, yes", "1"), ("no", "0"), ('5" disk', "1")]


@pytest.mark.parametrize(
    "text",
    [
        '"Well" he said',
        '"Hello',
        '"One", he said, "or two"',
        '"All of it"',
        'in "it"',
        '"',
        '"A, b" and c',
        "'x'",
        '"a"b"',
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_tabs_without_quoting_lose_neither_quotes_nor_rows(tmp_path, text, order):
    rows = [("a, b", "1"), (text, "2"), ("c", "3"), (text, "4"), ("d", "5")]
    data = "".join("\t".join(row[::order]) + "\n" for row in [("text", "label"), *rows])
    assert read(tmp_path, data, "a.tsv") == rows


def test_a_quote_that_is_never_closed_costs_its_row_only(tmp_path):
    source = write(tmp_path / "a.tsv", 'text\tlabel\nok\t1\n"open\nok\t2\nok\t3\n')
    with pytest.raises(InputError, match=r"a.tsv:3: has 1 columns where the header has 2 .*tabs"):
        list(read_documents(source))
    skipped: Counter[str] = Counter()
    assert len(list(read_documents(source, on_error="skip", skipped=skipped))) == 3
    assert skipped == {"wrong number of columns": 1}


def test_a_quoted_cell_of_many_lines_is_one_cell(tmp_path, monkeypatch):
    text = "\n".join(f"line {number}" for number in range(300))
    data = f'label\ttext\n1\t"{text}"\n2\tnext\n'
    assert read(tmp_path, data, "a.tsv") == [(text, "1"), ("next", "2")]
    data = f'label\ttext\n0\t"Well" he said\n1\t"{text}"\n2\tnext\n'
    assert read(tmp_path, data, "a.tsv") == [('"Well" he said', "0"), (text, "1"), ("next", "2")]
    monkeypatch.setattr(dialects, "LONGEST_QUOTED", 100)
    with pytest.raises(InputError, match=r"a.tsv:4: has 1 columns"):
        read(tmp_path, data, "a.tsv")


def test_what_quotes_are_taken_for_is_said_once(tmp_path, capsys):
    read(tmp_path, 'text\tlabel\n"a\tb"\t1\n"c" d\t2\n"e\tf"\t1\n"g" h\t2\n', "a.tsv")
    said = capsys.readouterr().err
    assert "a.tsv:2: the quotes that begin a cell here are read as quotes" in said
    assert "a.tsv:3: the quotes that begin a cell here are read as text" in said
    assert said.count("a.tsv") == 2


def test_the_delimiter_is_said_where_it_is_not_the_usual_one(tmp_path, capsys):
    read(tmp_path, "text,label\na,1\n")
    assert not capsys.readouterr().err
    read(tmp_path, "text;label\na;1\n")
    assert "a.csv: columns are parted by semicolons" in capsys.readouterr().err


def test_commas_stay_where_texts_hold_semicolons(tmp_path):
    rows = [(f"one; two; {number}|x", f"a;b{number}") for number in range(20)]
    data = "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)
    assert read(tmp_path, data) == rows


def test_rows_decide_where_the_header_holds_several(tmp_path):
    source = write(tmp_path / "a.csv", "id,name;alias,label\n1,x,a\n2,y;z,b\n")
    assert [list(row.fields) for row in read_rows(source)] == [["id", "name;alias", "label"]] * 2
    source = write(tmp_path / "b.csv", "text;label, final\nwell, yes, so;1\nno;2\n")
    assert [row.fields for row in read_rows(source)] == [
        {"text": "well, yes, so", "label, final": "1"},
        {"text": "no", "label, final": "2"},
    ]


def test_decimal_commas(tmp_path):
    assert read(tmp_path, "text;label;score\ngut;1;1,5\nschlecht;0;2,25\n") == [("gut", "1"), ("schlecht", "0")]


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=;", "sep=;;", "\n\nsep=;"])
def test_excels_first_line_says_the_delimiter(tmp_path, line):
    source = write(tmp_path / "a.csv", f"\ufeff{line}\r\ntext,x;label\r\na,b;1\r\n")
    [row] = read_rows(source)
    assert row.fields == {"text,x": "a,b", "label": "1"}
    assert row.where == f"{source}:{line.count(chr(10)) + 3}"


def test_a_column_may_be_called_sep(tmp_path):
    for line in ("sep=", 'sep="', "sep"):
        source = write(tmp_path / "a.csv", f"{line},text\n1,a\n" if line == "sep" else f"text,{line}\na,1\n")
        assert [document.text for document in read_documents(source)] == ["a"]
    assert [row.fields for row in read_rows(write(tmp_path / "a.csv", "sep=\r\n1\r\n"))] == [{"sep=": "1"}]


def test_cells_may_be_long(tmp_path):
    long = "a, b " * 100_000
    assert read(tmp_path, f'text;label\n"{long}";1\n') == [(long, "1")]


def test_any_delimiter_may_be_said(tmp_path):
    assert read(tmp_path, "sep=:\ntext:label\na,b:1\n") == [("a,b", "1")]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_one_column(tmp_path, name):
    source = write(tmp_path / name, "text\none; two | three\n\nfour\n")
    assert [document.text for document in read_documents(source)] == ["one; two | three", "four"]


def test_one_column_with_unquoted_commas_is_not_cut(tmp_path):
    source = write(tmp_path / "a.csv", "text\nHello, world\n")
    with pytest.raises(InputError, match=r"a.csv:2: has 2 columns where the header has 1 .*parted by commas"):
        list(read_documents(source))


def test_headers_as_people_write_them(tmp_path):
    assert read(tmp_path, '\ufeff"text","label"\n"a, b","1"\n') == [("a, b", "1")]
    assert read(tmp_path, 'text, label\n"a, b", "1, 2"\n') == [("a, b", "1, 2")]
    assert read(tmp_path, "\n \nlabel , text\n1,a\n") == [("a", "1")]


def test_delimiters_at_line_ends_and_columns_without_names(tmp_path):
    assert read(tmp_path, "text,label,\na,1,\nb,2,\n") == [("a", "1"), ("b", "2")]
    assert read(tmp_path, "text,label\na,1,,\nb,2\n") == [("a", "1"), ("b", "2")]
    assert read(tmp_path, "text,label,,\na,1\nb,2,\nc,3,of no name,\n") == [("a", "1"), ("b", "2"), ("c", "3")]
    assert read(tmp_path, ",text,label,,\n0,a,1,,\n1,b,2,,\n") == [("a", "1"), ("b", "2")]
    assert read(tmp_path, "text\tlabel\t\na\t1\t\n", "a.tsv") == [("a", "1")]


def test_blank_lines_and_rows_of_empty_cells_are_passed_over(tmp_path):
    assert read(tmp_path, "text,label\n\na,1\n,\n  \n , \nb,2\n,,\n") == [("a", "1"), ("b", "2")]


def test_a_row_that_is_too_short_is_named(tmp_path):
    with pytest.raises(InputError, match=r"a.csv:3: has 1 columns where the header has 2"):
        read(tmp_path, "text,label\na,1\nb\n")


def test_a_quote_in_quotes_that_is_not_doubled_is_named(tmp_path):
    with pytest.raises(InputError, match=r"a.csv:2: is not a valid row .*has to be doubled"):
        read(tmp_path, 'text,label\n"He said \\"hi\\" twice",1\n')


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", "text,label,label\na,1,2\n"),
        ("a.csv", 'text;"label"; label\na;1;2\n'),
        ("a.tsv", 'text\t"label"\tlabel\na\t1\t2\n'),
    ],
)
@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_two_columns_of_one_name_are_refused(tmp_path, name, data, on_error):
    source = write(tmp_path / name, data)
    with pytest.raises(InputError, match=rf'{name}:1: columns 2 and 3 are both called "label"'):
        list(read_documents(source, on_error=on_error))


def test_the_lines_of_rows_are_counted_through_all_line_ends(tmp_path):
    source = write(tmp_path / "a.tsv", 'text\tlabel\r"a\rb\r\nc"\t1\r\nd\t2\n')
    found = list(read_documents(source))
    assert [(document.text, document.where) for document in found] == [
        ("a\rb\r\nc", f"{source}:2"),
        ("d", f"{source}:5"),
    ]
