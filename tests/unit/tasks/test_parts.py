"""The parts of a task's examples: each label's share, several targets of a text, several labels of one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucidlm.core.errors import InputError
from lucidlm.data.split import place_of, split_at, split_of, stratified_bounds
from lucidlm.tasks import tasks
from lucidlm.tasks.base.parts import Parts, PartsConfig, as_judged, read_parts

PART = ("train", "validation", "test")


def write(path: Path, rows: Iterable[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def tickets(**numbers: int) -> list[dict[str, str]]:
    """Return texts of each label, mixed."""
    rows = [{"text": f"ticket {n} about {label}", "label": label} for label, k in numbers.items() for n in range(k)]
    return sorted(rows, key=lambda row: place_of("mixed " + row["text"]))


def read(data: str, task: str = "text-classification", bounds: Any = None, **fields: Any) -> Parts:
    return read_parts(PartsConfig(task=task, data=data, **fields), tasks.get(task), bounds)


def counts(parts: Parts, label: str) -> tuple[int, ...]:
    return tuple(sum(example.label == label for example in parts[part]) for part in PART)  # pyright: ignore


# ---------------------------------------------------------------------- each label's share


def test_every_part_has_its_share_of_each_label(tmp_path: Path) -> None:
    parts = read(write(tmp_path / "d.jsonl", tickets(a=200, b=50, c=10)), validation=0.1, test=0.2)
    assert [counts(parts, label) for label in "abc"] == [(140, 20, 40), (35, 5, 10), (7, 1, 2)]


def test_shares_that_are_no_whole_numbers_add_up(tmp_path: Path) -> None:
    """Forty labels of seven texts: 0.35 of each for validation and for test are 14 of 280, never two of one label."""
    data = write(tmp_path / "d.jsonl", tickets(**{f"label{n}": 7 for n in range(40)}))
    parts = read(data, validation=0.05, test=0.05)
    assert [len(parts[part]) for part in PART] == [252, 14, 14]  # pyright: ignore
    for part in ("validation", "test"):
        assert set(Counter(example.label for example in parts[part]).values()) == {1}


def test_rare_labels_stay_in_training_and_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*tickets(login=50, payment=50), {"text": "money back", "label": "refund"}]
    parts = read(write(tmp_path / "d.jsonl", rows), validation=0.3, test=0.3)
    assert counts(parts, "refund") == (1, 0, 0)
    assert "only learned from: 'refund' (1 example at " in (said := capsys.readouterr().err)
    assert "d.jsonl:101). Are they spelt right?" in said
    rows.append({"text": "I want my money", "label": "refund"})
    read(write(tmp_path / "d.jsonl", rows))
    assert "'refund' (2 examples, the first at " in capsys.readouterr().err
    read(write(tmp_path / "d.jsonl", tickets(login=50, payment=50)), validation=0, test=0)
    assert "rare" not in capsys.readouterr().err


def test_a_label_has_a_text_in_training_then_one_in_validation(tmp_path: Path) -> None:
    data = write(tmp_path / "d.jsonl", tickets(a=2, b=2, c=3))
    parts = read(data, validation=0.4, test=0.4)
    assert all(counts(parts, label)[0] >= 1 for label in "abc")
    assert all(counts(parts, label)[1] >= 1 for label in "abc")
    assert counts(parts, "c") == (1, 1, 1)


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=8),
    st.sampled_from([0, 0.05, 0.1, 0.3]),
    st.sampled_from([0, 0.2]),
)
def test_numbers_are_within_one_of_their_share(sizes: list[int], validation: float, test: float) -> None:
    places = {str(n): [place_of(f"{n} {k}") for k in range(size)] for n, size in enumerate(sizes)}
    bounds = stratified_bounds(places, validation, test)
    total: Counter[str] = Counter()
    for label, found in places.items():
        parts = Counter(split_at(place, *bounds[label]) for place in found)
        assert parts["train"] >= 1
        for part, share in (("validation", validation), ("test", test)):
            assert parts[part] <= share * len(found) + 1
            assert parts[part] > share * len(found) - 1 or len(found) <= 3
        total += parts
    if min(sizes) > 3:
        for part, share in (("validation", validation), ("test", test)):
            assert abs(total[part] - share * sum(sizes)) <= 1


def test_where_the_hash_is_right_already_it_decides() -> None:
    texts = {label: [f"{label} {n}" for n in range(2000)] for label in "ab"}
    places = {label: [place_of(text) for text in found] for label, found in texts.items()}
    bounds = stratified_bounds(places, 0.1, 0.1)
    same = [
        split_at(place_of(text), *bounds[label]) == split_of(text, 0.1, 0.1) for label in "ab" for text in texts[label]
    ]
    assert sum(same) / len(same) > 0.97
    exact = {"a": [n / 10 + 0.05 for n in range(10)]}
    assert stratified_bounds(exact, 0.2, 0.1) == {"a": (0.1, pytest.approx(0.3))}


def test_another_example_moves_hardly_any_other(tmp_path: Path) -> None:
    rows = tickets(a=150, b=90)
    before = read(write(tmp_path / "d.jsonl", rows), validation=0.1, test=0.1)
    after = read(write(tmp_path / "d.jsonl", [{"text": "one more", "label": "b"}, *rows]), validation=0.1, test=0.1)
    moved = sum(len({e.text for e in before[part]} - {e.text for e in after[part]}) for part in PART)  # pyright: ignore
    assert moved <= 3


def test_bounds_that_were_kept_hold_for_data_that_have_grown(tmp_path: Path) -> None:
    rows = tickets(a=100, b=40)
    before = read(write(tmp_path / "d.jsonl", rows), validation=0.1, test=0.1)
    kept = {label: tuple(found) for label, found in json.loads(json.dumps(before.bounds)).items()}
    more = [*tickets(a=160, b=80), {"text": "new", "label": "c"}]
    after = read(write(tmp_path / "d.jsonl", more), bounds=kept, validation=0.1, test=0.1)
    for part in PART:
        assert {e.text for e in before[part]} <= {e.text for e in after[part]}  # pyright: ignore
    assert len(after["test"]) > len(before["test"])
    plain = read(write(tmp_path / "d.jsonl", rows), bounds={}, validation=0.1, test=0.1)  # a model of before
    assert all(split_of(e.text, 0.1, 0.1) == part for part in PART for e in plain[part])  # pyright: ignore


def test_without_labels_the_hash_decides(tmp_path: Path) -> None:
    data = write(tmp_path / "d.jsonl", ({"source": f"one {n}", "target": f"un {n}"} for n in range(200)))
    parts = read(data, "translation", validation=0.1, test=0.2)
    assert parts.bounds == {}
    assert all(split_of(e.source, 0.1, 0.2) == part for part in PART for e in parts[part])  # pyright: ignore


def test_nothing_left_to_train_on(tmp_path: Path) -> None:
    data = write(tmp_path / "d.jsonl", ({"text": f"text {n}"} for n in range(3)))
    with pytest.raises(InputError, match=r"none of its 3 examples is left to train on.*Hold out less"):
        read(data, "generation", validation=0, test=0.999999)
    with pytest.raises(InputError, match="their sum has to be less than 1"):
        PartsConfig(task="sentiment", data="d", validation=0.5, test=0.5)
    assert PartsConfig(task="sentiment", data="d", validation_data="v", validation=0.5, test=0.5).test == 0.5


# ---------------------------------------------------------------------- examples of one text


def test_repeated_examples_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tickets(a=20, b=20)
    parts = read(write(tmp_path / "d.jsonl", [*rows, *rows[:15]]))
    assert sorted(e.text for found in parts.values() for e in found) == sorted(row["text"] for row in rows)
    assert "15 repeated examples left out" in capsys.readouterr().err


def test_targets_of_one_text_are_learned_and_are_references(tmp_path: Path) -> None:
    rows = [{"source": f"text {n}", "target": f"{way} {n}"} for way in ("one", "two", "one") for n in range(60)]
    rows.append({"source": "text  7", "target": "spaced 7", "references": ["spaced 7", "other 7"]})
    parts = read(write(tmp_path / "d.jsonl", rows), "translation", validation=0.2, test=0.2)
    sources = {part: {" ".join(e.source.split()) for e in parts[part]} for part in PART}  # pyright: ignore
    assert not sources["train"] & (sources["validation"] | sources["test"])
    assert not sources["validation"] & sources["test"]
    assert len(parts["train"]) == 2 * len(sources["train"]) + ("text 7" in sources["train"])
    for part in ("validation", "test"):
        assert len(parts[part]) == len(sources[part]) > 5
        for example in parts[part]:
            number = example.source.split()[-1]
            expected = (f"one {number}", f"two {number}", *(("spaced 7", "other 7") if number == "7" else ()))
            assert (example.target, example.references) == (f"one {number}", expected)


@pytest.mark.parametrize("task", ["question-answering", "generative-question-answering"])
def test_answers_to_one_question_stand_together(task: str, tmp_path: Path) -> None:
    context = "Paris, a city in France."
    rows = [
        {"id": str(n), "context": context, "question": "What is it?", "answers": {"text": [text], "answer_start": [at]}}
        for n, (text, at) in enumerate([("Paris", 0), ("a city", 7), ("Paris", 0)])
    ]
    path = write(tmp_path / "d.jsonl", [*rows, {**rows[0], "question": "And?"}])
    held_out = write(tmp_path / "v.jsonl", rows)
    parts = read(path, task, validation=0, test=0)
    assert [[a.text for a in e.answers] for e in parts["train"]] == [["Paris"], ["a city"], ["Paris"]]
    parts = read(path, task, validation_data=held_out, test=0)
    assert [[a.text for a in e.answers] for e in parts["validation"]] == [["Paris", "a city"]]
    assert [e.question for e in parts["train"]] == ["And?"]


def test_what_is_only_judged_by_has_references_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = tasks.get("summarization")
    rows = [{"document": f"text {n % 2}", "summary": f"short {n}"} for n in range(4)]
    data = write(tmp_path / "d.jsonl", rows)
    parts = read(data, "summarization", validation=0, test=0)
    found = as_judged(task, parts["train"], "d.jsonl")
    assert [(e.source, e.references) for e in found] == [
        ("text 0", ("short 0", "short 2")),
        ("text 1", ("short 1", "short 3")),
    ]
    assert "4 examples of 2 texts" in capsys.readouterr().err
    assert as_judged(task, found, "d.jsonl") is found
    passages = read(write(tmp_path / "p.jsonl", [{"text": "some text"}]), "generation", validation=0, test=0)["train"]
    assert len(as_judged(tasks.get("generation"), passages * 2, "p.jsonl")) == 2


# ---------------------------------------------------------------------- several labels of one text


@pytest.fixture
def conflicting(tmp_path: Path) -> str:
    rows = [*tickets(a=10, b=10), {"text": "both ways", "label": "a"}, {"text": "both  ways", "label": "b"}]
    return write(tmp_path / "d.jsonl", rows)


@pytest.mark.parametrize(("choice", "left"), [("drop", []), ("first", ["a"]), ("keep", ["a", "b"])])
def test_a_text_with_two_labels(
    choice: str, left: list[str], conflicting: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = read(conflicting, on_conflict=choice, validation=0.1, test=0.1)
    holding = [part for part in PART if any("both" in e.text for e in parts[part])]  # pyright: ignore
    assert len(holding) == (len(left) > 0)  # never on both sides of a split
    assert [e.label for found in parts.values() for e in found if "both" in e.text] == left
    said = " ".join(capsys.readouterr().err.split())
    done = {"drop": "left out", "first": "the first is taken", "keep": "all are taken"}[choice]
    assert f"texts with several labels: 1, {done}:" in said
    assert "\"both ways\" is 'a' (" in said
    assert "d.jsonl:21) and 'b' (" in said
    assert "d.jsonl:22)" in said


def test_a_text_with_two_labels_may_stop_it(conflicting: str) -> None:
    message = r"\"both ways\" is 'a' \(.*d\.jsonl:21\) and 'b' \(.*d\.jsonl:22\).*--on-conflict drop, first or keep"
    with pytest.raises(InputError, match=message):
        read(conflicting, on_conflict="stop")


def test_two_spellings_of_a_label_are_no_conflict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": f"text {n}", "label": label} for n in range(30) for label in (("1", "pos"), ("0", "neg"))[n % 2]]
    parts = read(write(tmp_path / "d.jsonl", rows), "sentiment")
    assert sum(map(len, parts.values())) == 30
    assert "several labels" not in capsys.readouterr().err
    assert parts.bounds.keys() == {"negative", "positive"}


def test_a_text_that_is_only_judged_by_keeps_its_labels(conflicting: str, capsys: pytest.CaptureFixture[str]) -> None:
    examples = read(conflicting, on_conflict="keep", validation=0, test=0)["train"]
    capsys.readouterr()
    assert as_judged(tasks.get("text-classification"), examples, "d.jsonl") is examples
    assert "texts with several labels: 1, all are taken:" in capsys.readouterr().err


# ---------------------------------------------------------------------- validation examples of their own


def test_they_are_never_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tickets(a=30, b=30)
    chosen = write(tmp_path / "v.jsonl", rows[:20])
    parts = read(write(tmp_path / "d.jsonl", rows), validation_data=chosen, test=0)
    assert [len(parts[part]) for part in PART] == [40, 20, 0]  # pyright: ignore
    assert not {e.text for e in parts["train"]} & {e.text for e in parts["validation"]}
    assert "20 texts left out that are among the validation examples" in capsys.readouterr().err


def test_a_label_that_the_training_data_lack_is_named(tmp_path: Path) -> None:
    chosen = write(tmp_path / "v.jsonl", [*tickets(a=3, b=3), {"text": "what?", "label": "c"}])
    data = write(tmp_path / "d.jsonl", [{"text": f"other {n}", "label": "ab"[n % 2]} for n in range(9)])
    message = r"v\.jsonl:7: the label 'c' is not among those of the training data \(a, b\)\. Correct it.*to .*d\.jsonl"
    with pytest.raises(InputError, match=message):
        read(data, validation_data=chosen)
