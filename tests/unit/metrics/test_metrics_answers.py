"""Metrics of spans and rankings by hand."""

from __future__ import annotations

import math

import pytest

from lucidlm.data.examples.records import Answer, Match, Question, Ranking, Span
from lucidlm.metrics.answer_metrics import span_metrics
from lucidlm.metrics.ranking_metrics import ranking_metrics


def question(*answers: str) -> Question:
    return Question("1", "a context", "what?", tuple(Answer(text, 0) for text in answers), "a.jsonl:1")


def scored(examples: list[Question], texts: list[str]) -> dict[str, float]:
    return {m.name: m(examples, [Span(text, 0) for text in texts]) for m in span_metrics(examples)}


def test_articles_case_and_punctuation_do_not_count() -> None:
    assert scored([question("The U.S. Army")], ["us army!"]) == {"f1": 100, "exact_match": 100}


def test_the_best_answer_counts() -> None:
    found = scored([question("Denver", "Denver Broncos team")], ["Broncos of Denver"])
    assert found["f1"] == pytest.approx(100 * 2 * 2 / 6)
    assert found["exact_match"] == 0


def test_chinese_is_compared_by_character() -> None:
    found = scored([question("北京大学")], ["《北京》"])
    assert found["f1"] == pytest.approx(100 * 2 * 2 / 6)
    assert scored([question("2016 年")], ["2016年。"])["exact_match"] == 100


def test_punctuation_is_that_of_the_text() -> None:
    assert scored([question("«Москва»")], ["москва."]) == {"f1": 100, "exact_match": 100}
    assert scored([question("दिल्ली।")], ["दिल्ली"])["exact_match"] == 100
    assert scored([question("“Denver”")], ["Denver"])["exact_match"] == 0  # as SQuAD's script has it


def test_silence_is_right_where_there_is_no_answer() -> None:
    found = scored([question(), question(), question("x")], ["", "something", ""])
    assert found["f1"] == pytest.approx(100 / 3)
    assert found["f1_answered"] == 0
    assert found["f1_unanswerable"] == 50


def test_rankings_by_hand() -> None:
    examples = [Match(("q",), item, "a.jsonl:1") for item in ("a", "b", "z")]
    items = tuple("abcdefghijkl")
    found = {m.name: m(examples, [Ranking(items)] * 3) for m in ranking_metrics(examples)}
    assert found["recall@1"] == pytest.approx(1 / 3)
    assert found["recall@5"] == found["recall@10"] == pytest.approx(2 / 3)
    assert found["mrr"] == pytest.approx((1 + 1 / 2) / 3)
    assert found["ndcg@10"] == pytest.approx((1 + 1 / math.log2(3)) / 3)
