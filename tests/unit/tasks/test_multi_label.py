"""Multi-label data: how labels are written, and what is named where they cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lucidlm.core.errors import InputError
from lucidlm.data.examples.config import PartsConfig
from lucidlm.data.examples.records import MultiLabelPrediction, MultiLabelText
from lucidlm.tasks import read_examples, tasks
from lucidlm.tasks.base.parts import read_parts
from lucidlm.tasks.multi_label import MultiLabelClassification


def task() -> MultiLabelClassification:
    found = tasks.get("multi-label")
    assert isinstance(found, MultiLabelClassification)
    return found


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_labels_in_lists(tmp_path: Path) -> None:
    rows = [["b", " a "], [], [3, 2.0], ["law, crime"]]
    source = write(tmp_path / "d.jsonl", *({"text": f"text {n}", "labels": labels} for n, labels in enumerate(rows)))
    found = [example.labels for example in read_examples(task(), source)]
    assert found == [("b", "a"), (), ("3", "2"), ("law, crime",)]


def test_labels_in_cells_of_a_table(tmp_path: Path) -> None:
    cells = ["a", "a; b", '"a,b"', "", '"[""law, crime"", ""b""]"', "[]"]
    path = tmp_path / "d.csv"
    path.write_text("text,labels\n" + "".join(f"text {n},{cell}\n" for n, cell in enumerate(cells)))
    found = [example.labels for example in read_examples(task(), str(path))]
    assert found == [("a",), ("a", "b"), ("a", "b"), (), ("law, crime", "b"), ()]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "x"}, r'd.jsonl:2: field "labels" is missing'),
        ({"text": "x", "labels": None}, r'd.jsonl:2: field "labels" is empty'),
        ({"text": "x", "labels": 3}, r'd.jsonl:2: field "labels" holds a int, neither a list'),
        ({"text": "x", "labels": {"a": 1}}, r'd.jsonl:2: field "labels" holds a dict'),
        ({"text": "x", "labels": [["a"]]}, r'd.jsonl:2: field "labels" holds a list among its labels'),
        ({"text": "x", "labels": ["a", None]}, r'd.jsonl:2: field "labels" holds None among its labels'),
        ({"text": "x", "labels": "a;;b"}, r"d.jsonl:2: field \"labels\" holds '' among its labels"),
        ({"text": "x", "labels": ["a", "b", " a"]}, r"d.jsonl:2: field \"labels\" holds 'a' twice"),
        ({"text": "x", "labels": "a, a"}, r"d.jsonl:2: field \"labels\" holds 'a' twice"),
        ({"text": "x", "labels": "['a', 'b']"}, r'd.jsonl:2: field "labels" begins as a list and is none in JSON'),
        ({"text": " ", "labels": []}, r'd.jsonl:2: field "text" holds no text'),
    ],
)
def test_what_cannot_be_read_is_named_by_line(tmp_path: Path, row: dict, message: str) -> None:
    source = write(tmp_path / "d.jsonl", {"text": "fine", "labels": ["a"]}, row)
    with pytest.raises(InputError, match=message):
        read_examples(task(), source)
    assert len(read_examples(task(), source, on_error="skip")) == 1


def test_other_names_of_the_fields(tmp_path: Path) -> None:
    source = write(tmp_path / "d.jsonl", {"body": "x", "tags": "a;"})
    with pytest.raises(InputError, match=r'd.jsonl:1: field "tags"'):
        read_examples(task(), source, fields={"text": "body", "labels": "tags"})


def test_an_unknown_label_is_named_by_line() -> None:
    examples = [MultiLabelText("x", ("b",), "f:1"), MultiLabelText("y", (), "f:2"), MultiLabelText("z", ("a",), "f:3")]
    assert task().label_ids(examples, ["a", "b"]).tolist() == [[False, True], [False, False], [True, False]]
    with pytest.raises(InputError, match=r"f:1: the label 'b' is not one the model knows \(a, c\)"):
        task().label_ids(examples, ["a", "c"])


def test_data_without_any_label_is_refused() -> None:
    with pytest.raises(InputError, match=r"f:1: none of 2 examples has a label"):
        task().discover_labels([MultiLabelText("x", (), "f:1"), MultiLabelText("y", (), "f:2")])


def test_a_text_with_two_sets_of_labels_is_a_conflict_and_with_one_a_copy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [["a", "b"], ["b", "a"], ["a"]]
    source = write(tmp_path / "d.jsonl", *({"text": "same", "labels": labels} for labels in rows))
    config = PartsConfig(task="multi-label", data=source, validation=0, test=0)
    with pytest.raises(InputError, match="none of its 2 examples is left"):
        read_parts(config, task())
    assert "\"same\" is 'the set {a, b}' (" in capsys.readouterr().err
    kept = read_parts(config.changed(on_conflict="first"), task())["train"]
    assert [example.labels for example in kept] == [("a", "b")]


def test_what_is_shown() -> None:
    prediction = MultiLabelPrediction(("a", "b", "c"), (0.4, 0.3, 0.9), (0.4, 0.5, 0.5))
    assert task().show(MultiLabelText("x", ("b",), "f:1"), prediction) == {
        "text": "x",
        "labels": ["b"],
        "predicted": ["a", "c"],
        "probabilities": {"a": 0.4, "b": 0.3, "c": 0.9},
    }
