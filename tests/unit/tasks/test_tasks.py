"""Tasks: labels are found, named, and matched; what cannot be used is named by file and line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from lucidlm.core.errors import InputError
from lucidlm.data.examples.records import LabelledText
from lucidlm.tasks import read_examples, tasks
from lucidlm.tasks.text_classification import TextClassification


def sentiment() -> TextClassification:
    task = tasks.get("sentiment")
    assert isinstance(task, TextClassification)
    return task


def labelled(*labels: str) -> list[LabelledText]:
    return [LabelledText(f"text {n}", label, f"f.jsonl:{n}") for n, label in enumerate(labels, 1)]


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_an_unknown_task_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"no task called 'sentimental'.*sentiment"):
        tasks.get("sentimental")


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (("positive", "negative") * 2, ["negative", "positive"]),
        (("1", "0") * 2, ["negative", "positive"]),
        (("pos", "neg") * 2, ["negative", "positive"]),
        (("2", "1", "0") * 2, ["0", "1", "2"]),
        (("pos", "neutral") * 2, ["neutral", "pos"]),
    ],
)
def test_labels_are_discovered_and_named_only_where_no_doubt_is_left(found: tuple[str, ...], names: list[str]) -> None:
    task, examples = sentiment(), labelled(*found)
    assert task.discover_labels(examples) == names
    ids = task.label_ids(examples, names)
    assert len(set(ids.tolist())) == len(names)


def test_labels_mean_the_same_whatever_the_order_and_spelling_of_the_data() -> None:
    assert sentiment().label_ids(labelled("1", "neg", "positive"), ["negative", "positive"]).tolist() == [1, 0, 1]


def test_one_label_is_too_few() -> None:
    with pytest.raises(InputError, match=r"f.jsonl:1: all 3 examples have one label, 'positive'"):
        sentiment().discover_labels(labelled("positive", "pos", "1"))


def test_an_unknown_label_is_named_with_its_line_and_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"f.jsonl:2: the label 'meh' .*negative, positive"):
        sentiment().label_ids(labelled("positive", "meh"), ["negative", "positive"])


def test_texts_are_cleaned_but_short_and_monotonous_ones_stay(tmp_path: Path) -> None:
    source = write(
        tmp_path / "d.jsonl",
        {"text": "Good<br />film â€” really", "label": " positive "},
        {"text": "ok", "label": 0},
        {"text": "bad bad bad bad " * 50, "label": "negative"},
        {"text": "好看！", "label": "positive"},
    )
    found = read_examples(sentiment(), source)
    assert [example.text for example in found] == [
        "Good\nfilm — really",
        "ok",
        ("bad bad bad bad " * 50).strip(),
        "好看！",
    ]
    assert [example.label for example in found] == ["positive", "0", "negative", "positive"]
    assert found[1].where == f"{source}:2"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "fine", "lable": "positive"}, r':2: field "label" is missing \(fields found: text, lable\)'),
        ({"text": "fine", "label": ""}, r':2: field "label" is empty'),
        ({"text": "  ", "label": "positive"}, r':2: field "text" holds no text'),
    ],
)
def test_rows_that_cannot_be_used_stop_or_are_skipped_and_counted(tmp_path: Path, row: dict, message: str) -> None:
    source = write(tmp_path / "d.jsonl", {"text": "good", "label": "positive"}, row)
    with pytest.raises(InputError, match=message):
        read_examples(sentiment(), source)
    skipped: Counter[str] = Counter()
    assert len(read_examples(sentiment(), source, on_error="skip", skipped=skipped)) == 1
    assert skipped.total() == 1


def test_fields_can_be_named(tmp_path: Path) -> None:
    source = write(tmp_path / "d.jsonl", {"review": "good", "stars": 5})
    found = read_examples(sentiment(), source, fields={"text": "review", "label": "stars"})
    assert (found[0].text, found[0].label) == ("good", "5")


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    source = write(tmp_path / "d.jsonl", {"text": " ", "label": "positive"})
    with pytest.raises(InputError, match="holds no examples"):
        read_examples(sentiment(), source, on_error="skip")


def test_an_unknown_field_is_named(tmp_path: Path) -> None:
    source = write(tmp_path / "d.jsonl", {"text": "good", "label": "positive"})
    with pytest.raises(InputError, match=r"the task sentiment has no field 'label_field'.*text, label"):
        read_examples(sentiment(), source, fields={"label_field": "stars"})


def test_a_renamed_field_is_missed_under_its_own_name(tmp_path: Path) -> None:
    source = write(tmp_path / "d.jsonl", {"text": "good", "label": "positive"})
    with pytest.raises(InputError, match=r':1: field "review" is missing \(fields found: text, label\)'):
        read_examples(sentiment(), source, fields={"text": "review"})
