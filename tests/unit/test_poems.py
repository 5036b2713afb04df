"""What `benchmarks/poems.py` takes for a poem's form, for a rhyme and for a copy, and the n-gram model beside it."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from poems import CharacterNgrams, first_lines, has_form, judged, rhymes

THOUGHTS = "静夜思\n李白\n床前明月光，疑是地上霜。\n举头望明月，低头思故乡。"
LINES = ["床前明月光", "疑是地上霜", "举头望明月", "低头思故乡"]


def test_a_poem_stands_after_title_and_author() -> None:
    assert first_lines(THOUGHTS) == LINES
    assert first_lines(f"\n{THOUGHTS}\n一二三四五，") == LINES
    assert first_lines("题\n人") == first_lines("") == []


@pytest.mark.parametrize(
    ("lines", "right"),
    [
        (LINES, True),
        (["一二三四五六七"] * 4, True),
        (["一二三四五六"] * 4, False),
        ([*LINES[:3], "低头思故"], False),
        (LINES[:3], False),
        ([], False),
    ],
)
def test_form_is_four_lines_of_five_or_seven(lines: list[str], right: bool) -> None:
    assert has_form(lines) == right


@pytest.mark.parametrize(
    ("second", "fourth", "right"),
    [
        ("霜", "乡", True),  # uang and iang
        ("人", "春", True),  # en and uen
        ("重", "逢", True),
        ("霜", "人", False),
        ("霜", "霜", False),  # the same character is no rhyme
        ("霜", "x", False),
    ],
)
def test_rhyme_is_heard_from_the_main_vowel_on(second: str, fourth: str, right: bool) -> None:
    pytest.importorskip("pypinyin", reason="the benchmark's own requirement: pip install pypinyin")
    assert rhymes(["床前明月光", f"疑是地上{second}", "举头望明月", f"低头思故{fourth}"]) == right
    assert not rhymes(["床前明月光", f"疑是地上{second}"])


def test_a_line_of_the_text_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poems.rhymes", lambda lines: len(lines) == 4)
    found = judged([THOUGHTS, "题\n人\n一二三四五，六七八九十。\n一二三四五，六七八九十。", ""], frozenset({LINES[2]}))
    assert {name: hits.tolist() for name, hits in found.items()} == {
        "form": [1, 1, 0],
        "rhyme": [1, 1, 0],
        "form and rhyme": [1, 1, 0],
        "no line copied": [0, 1, 0],
    }


def test_ngrams_write_what_the_texts_have() -> None:
    assert CharacterNgrams([THOUGHTS], 4).write(random.Random(0)) == THOUGHTS
    model = CharacterNgrams(["abab", "abc"], 2)
    assert model.counts["a"] == {"b": 3}
    assert model.counts["b"] == {"a": 1, "c": 1, "": 1}
    written = {model.write(random.Random(seed)) for seed in range(50)}
    assert {"ab", "abc", "abab"} <= written
    assert all(text.startswith("ab") and set(text) <= set("abc") for text in written)
