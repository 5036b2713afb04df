"""Rows: keys and columns that stand twice, and labels that are missing or written as programs write them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from lucidlm.cli.options import renamed
from lucidlm.core.errors import InputError
from lucidlm.data.formats.rows import label_text, repeated
from lucidlm.data.sources.read import read_documents, read_rows
from lucidlm.tasks import read_examples, tasks

NAN = float("nan")


def write(path: Path, data: str) -> str:
    path.write_text(data, encoding="utf-8")
    return str(path)


def task():
    return tasks.get("text-classification")


# ---------------------------------------------------------------------- names that stand twice

TWICE = [
    ('{"text": "a", "label": 1, "label": 2}', 'keys 2 and 3 of an object are both called "label"'),
    ('{"text": "a", "about": {"x": 1, "y": {"z": 1}, "x": 1}}', 'keys 1 and 3 of an object are both called "x"'),
    ('{"text": "a", "turns": [{"role": "user", "role": "user"}]}', 'keys 1 and 2 of an object are both called "role"'),
]


@pytest.mark.parametrize(("row", "message"), TWICE)
@pytest.mark.parametrize("form", ["a.jsonl", "a.json", "b.json"])
def test_keys_that_stand_twice_are_refused_or_skipped(tmp_path, row, message, form):
    rows = ['{"text": "ok"}', row, '{"text": "ok"}']
    data = f"[{','.join(f'{one}{chr(10)}' for one in rows)}]" if form == "b.json" else "\n".join(rows)
    source = write(tmp_path / form, data)
    with pytest.raises(InputError, match=message) as caught:
        list(read_rows(source))
    assert caught.value.where == f"{source}:2"
    skipped: Counter[str] = Counter()
    assert len(list(read_rows(source, on_error="skip", skipped=skipped))) == 2
    assert skipped == {"two keys of one name": 1}


def test_one_key_in_several_objects_is_no_matter(tmp_path):
    source = write(tmp_path / "a.jsonl", '{"text": "a", "x": {"text": 1}, "y": [{"text": 1}, {"text": 2}]}\n')
    assert len(list(read_rows(source))) == 1


def test_columns_of_a_parquet_file_that_stand_twice_are_refused(tmp_path):
    columns = [pyarrow.array(["a"]), pyarrow.array(["x"]), pyarrow.array(["y"])]
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns, names=["text", "label", "label"]), path)
    with pytest.raises(InputError, match=r'a.parquet: columns 2 and 3 are both called "label"'):
        list(read_rows(str(path)))
    inner = pyarrow.StructArray.from_arrays(columns[1:], names=["x", "x"])
    pyarrow.parquet.write_table(pyarrow.table([columns[0], inner], names=["text", "about"]), path)
    with pytest.raises(InputError, match=r"a.parquet: .*field"):
        list(read_rows(str(path)))


def test_two_fields_are_not_read_from_one(tmp_path):
    source = write(tmp_path / "a.jsonl", '{"a": "x"}\n')
    with pytest.raises(InputError, match='"text" and "label" are both to be read from "a"'):
        read_examples(task(), source, fields={"text": "a", "label": "a"})
    with pytest.raises(InputError, match="--field: text is to be read from a and from b"):
        renamed(["text=a", "text=b"])
    with pytest.raises(InputError, match="--field: text is to be read from a and from b"):
        renamed(["text=b"], text="a")
    assert renamed(["text=a"], text="a") == {"text": "a"}


def test_names_that_stand_twice_are_found():
    assert repeated(["a", "b", "c"]) is None
    assert repeated([]) is None
    assert repeated(["a", "b", "c", "b", "a"]) == ("b", 2, 4)


# ---------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    "value",
    [
        None,
        NAN,
        "",
        "  ",
        "\u3000",
        "nan",
        "NaN",
        "NAN",
        "-nan",
        "null",
        "NULL",
        "Null",
        "<NA>",
        "N/A",
        "n/a",
        "#N/A",
        " NaN ",
        "NA",
    ],
)
def test_missing_labels(value):
    assert label_text(value) is None


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("none", "none"),
        ("None", "None"),
        ("na", "na"),
        (" a b ", "a b"),
        (0, "0"),
        (1.0, "1"),
        (-2.0, "-2"),
        (1.5, "1.5"),
        ("1.0", "1"),
        ("1.00", "1"),
        ("-1.0", "-1"),
        ("1.5", "1.5"),
        ("1.0.0", "1.0.0"),
        ("v1.0", "v1.0"),
        (True, "True"),
        (float("inf"), "inf"),
    ],
)
def test_labels(value, label):
    assert label_text(value) == label


def as_jsonl(path: Path, labels: list[object]) -> str:
    return write(
        path / "a.jsonl", "".join(json.dumps({"text": f"t{n}", "label": x}) + "\n" for n, x in enumerate(labels))
    )


def as_json(path: Path, labels: list[object]) -> str:
    return write(path / "a.json", json.dumps([{"text": f"t{n}", "label": x} for n, x in enumerate(labels)], indent=1))


def as_csv(path: Path, labels: list[object]) -> str:
    rows = "".join(f"t{n},{'' if x is None else x}\n" for n, x in enumerate(labels))
    return write(path / "a.csv", "text,label\n" + rows)


def as_parquet(path: Path, labels: list[object]) -> str:
    columns = {"text": [f"t{n}" for n in range(len(labels))], "label": labels}
    pyarrow.parquet.write_table(pyarrow.table(columns), path / "a.parquet")
    return str(path / "a.parquet")


@pytest.mark.parametrize(("form", "line"), [(as_jsonl, 3), (as_json, 10), (as_csv, 4), (as_parquet, 3)])
@pytest.mark.parametrize("missing", [None, NAN])
def test_missing_labels_are_refused_or_skipped_and_numbers_are_one_label(tmp_path, form, line, missing):
    source = form(tmp_path, [1.0, 0.0, missing, 1.0])
    what = 'field "label" (is empty|holds nan, which stands for a missing value)'
    with pytest.raises(InputError, match=what) as caught:
        read_examples(task(), source)
    assert caught.value.where == f"{source}:{line}"
    assert "--on-error skip" in str(caught.value)
    with pytest.raises(InputError, match=what):
        list(read_documents(source, label_field="label"))
    skipped: Counter[str] = Counter()
    found = read_examples(task(), source, on_error="skip", skipped=skipped)
    assert [example.label for example in found] == ["1", "0", "1"]
    assert skipped.total() == 1
    skipped.clear()
    labels = [one.label for one in read_documents(source, label_field="label", on_error="skip", skipped=skipped)]
    assert labels == ["1", "0", "1"]
    assert skipped == {'missing field "label"': 1}


@pytest.mark.parametrize("form", [as_jsonl, as_csv])
def test_words_that_programs_write_for_missing_labels(tmp_path, form):
    for word in ("NaN", "null", "<NA>"):
        with pytest.raises(InputError, match=f'field "label" holds {word}, which stands for a missing value'):
            read_examples(task(), form(tmp_path, ["favor", word]))
    assert [example.label for example in read_examples(task(), form(tmp_path, ["favor", "none"]))] == ["favor", "none"]


def test_a_number_that_is_none_is_missing_in_any_field(tmp_path):
    source = as_jsonl(tmp_path, ["a"])
    Path(source).write_text('{"text": NaN, "label": "a"}\n', encoding="utf-8")
    with pytest.raises(InputError, match='field "text" holds nan, which stands for a missing value'):
        read_examples(task(), source)
    with pytest.raises(InputError, match='field "text" holds nan, which stands for a missing value'):
        list(read_documents(source))


def test_models_of_earlier_versions_know_whole_numbers_by_their_fraction():
    assert task().known_as("1", ["0.0", "1.0"]) == "1.0"
    assert task().known_as("1", ["0", "1"]) == "1"
    assert task().known_as("2", ["0.0", "1.0"]) is None


def test_numbers_of_many_digits_are_no_traceback(tmp_path):
    source = write(tmp_path / "a.jsonl", '{"text": "a", "n": ' + "1" * 5000 + "}\n")
    with pytest.raises(InputError, match=r"a.jsonl:1: is not valid JSON"):
        list(read_rows(source))
