"""Forms of data sets: SQuAD as it is published is read, others are recognised and named in one message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lucidlm.core.errors import InputError
from lucidlm.data.examples.records import Answer, Row
from lucidlm.data.examples.squad import flattened
from lucidlm.tasks import read_examples, tasks

CONTEXT = "The bridge was built in 1911 by two brothers."
WHEN = {"id": "q1", "question": "When?", "answers": [{"text": "1911", "answer_start": 24}]}
PLAUSIBLE = [{"text": "two", "answer_start": 32}]
WHO = {"id": "q2", "question": "Who paid?", "answers": [], "is_impossible": True, "plausible_answers": PLAUSIBLE}
FLAT = {"id": "q3", "context": CONTEXT, "question": "By whom?", "answers": {"text": ["two"], "answer_start": [32]}}


def published(*questions: dict[str, Any]) -> dict[str, Any]:
    paragraphs = [{"context": CONTEXT, "qas": list(questions)}, {"context": f"Yes. {CONTEXT}", "qas": []}]
    return {"version": "v2.0", "data": [{"title": "Bridge", "paragraphs": paragraphs}]}


def file(folder: Path, content: Any, name: str = "squad.json") -> str:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def test_squad_is_read_as_it_is_published(tmp_path: Path) -> None:
    source = file(tmp_path, published(WHEN, WHO))
    when, who = read_examples(tasks.get("question-answering"), source)
    assert (when.id, when.context, when.question, when.answers) == ("q1", CONTEXT, "When?", (Answer("1911", 24),))
    assert when.where == f"{source}:1, question q1"
    assert (who.id, who.answers) == ("q2", ())


def test_what_is_written_is_for_questions_with_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = file(tmp_path, published(WHEN, WHO))
    [when] = read_examples(tasks.get("generative-question-answering"), source)
    assert (when.id, when.answers) == ("q1", (Answer("1911", 24),))
    assert "1 questions without an answer left out" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["question-answering", "generative-question-answering"])
def test_squad_is_read_flat_as_hubs_have_it(tmp_path: Path, task: str) -> None:
    [found] = read_examples(tasks.get(task), file(tmp_path, FLAT, "squad.jsonl"))
    assert (found.id, found.context, found.answers) == ("q3", CONTEXT, (Answer("two", 32),))


def test_articles_and_paragraphs_may_be_rows() -> None:
    article, paragraph = published(WHEN)["data"][0], published(WHEN)["data"][0]["paragraphs"][0]
    for nested in (article, paragraph, {"data": [{**WHEN, "context": CONTEXT}]}):
        [found] = flattened(Row(nested, "f:2"))
        assert (found.fields["context"], found.fields["question"], found.where) == (
            CONTEXT,
            "When?",
            "f:2, question q1",
        )
    assert list(flattened(Row(FLAT, "f:3"))) == [Row(FLAT, "f:3")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            published({**WHEN, "answers": [{"text": "1911", "answer_start": 3}]}),
            "question q1: the answer '1911' stands",
        ),
        (published({"question": "When?"}), 'article 1, paragraph 1, question 1: field "answers" is missing'),
        ({"data": ["x"]}, "article 1: is a str, not an object"),
    ],
)
def test_what_is_wrong_is_named_by_its_question(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(InputError, match=r"squad\.json:1, ") as caught:
        read_examples(tasks.get("question-answering"), file(tmp_path, content))
    assert message in str(caught.value)


def test_of_a_published_file_too_what_is_wrong_can_be_skipped(tmp_path: Path) -> None:
    source = file(tmp_path, published(WHEN, {**WHEN, "answers": [{"text": "1912", "answer_start": 24}]}))
    assert len(read_examples(tasks.get("question-answering"), source, on_error="skip")) == 1


TAGS = "EU NNP B-NP B-ORG\nrejects VBZ B-VP O\nGerman JJ B-NP B-MISC\n\nPeter NNP B-NP B-PER\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "squad.json",
            published(WHEN),
            "questions nested in paragraphs, as SQuAD has them. That is for question-answering",
        ),
        ("rows.json", {"data": [{"text": "a", "label": "b"}]}, 'rows in a list, field "data". Take them out'),
        ("a.conll", "EU B-ORG\n", "a label for each word, as CoNLL's columns do. That is for token-tagging"),
        ("a.txt", TAGS, "a label for each word"),
        ("b.txt", "A\tDET\ncat\tNOUN\nsat\tVERB\n\nIt\tPRON\n", "a label for each word"),
        ("a.tsv", "EU\tB-ORG\nrejects\tO\n\nPeter\tB-PER\n", "a label for each word"),
        ("b.tsv", "word\ttag\nEU\tB-ORG\n", "a label for each word"),
        ("a.jsonl", {"tokens": ["EU"], "ner_tags": [3]}, "a label for each word"),
        (
            "b.jsonl",
            {"text": "a b", "labels": ["x", "y"]},
            'field "labels" holds a list of labels, and a text has one here',
        ),
        ("c.jsonl", {"text": "a b", "label": ["x", "y"]}, 'field "label" holds a list of labels'),
    ],
)
def test_forms_that_no_task_reads_are_named_once(tmp_path: Path, name: str, content: Any, message: str) -> None:
    source = file(tmp_path, content, name)
    with pytest.raises(InputError) as caught:
        read_examples(tasks.get("text-classification"), source, on_error="skip")
    assert message in str(caught.value)
    assert "text-classification reads a row for each example, with the fields text, label." in str(caught.value)


def test_other_rows_are_told_what_is_wrong_with_them(tmp_path: Path) -> None:
    task = tasks.get("text-classification")
    for content, message in [
        ({"text": "a"}, '"label" is missing'),
        ({"words": "a b", "label": "B-1"}, '"text" is missing'),
    ]:
        with pytest.raises(InputError, match=message):
            read_examples(task, file(tmp_path, content, "rows.jsonl"))
    with pytest.raises(InputError, match='"label" is missing'):
        read_examples(task, file(tmp_path, "A text.\nOf lines.\nThree.\n", "a.txt"))
    assert len(read_examples(tasks.get("perplexity"), file(tmp_path, TAGS, "a.txt"))) == 1
