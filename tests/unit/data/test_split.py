"""Splitting by hash."""

from __future__ import annotations

from collections import Counter

from lucidlm.data.split import split_of

TEXTS = [f"text number {i}" for i in range(4000)]


def test_the_same_text_always_falls_into_the_same_split() -> None:
    assert [split_of(text) for text in TEXTS] == [split_of(text) for text in TEXTS]
    assert split_of("a  text\n") == split_of("a text")
    assert split_of("text number 0") == "train"  # a change here would mix up data that is split already


def test_shares_are_kept() -> None:
    counts = Counter(split_of(text, validation=0.1, test=0.2) for text in TEXTS)
    assert abs(counts["validation"] / 4000 - 0.1) < 0.02
    assert abs(counts["test"] / 4000 - 0.2) < 0.025


def test_more_validation_takes_from_training_only() -> None:
    for text in TEXTS:
        before, after = split_of(text, 0.05, 0.1), split_of(text, 0.3, 0.1)
        assert (before == after) or (before, after) == ("train", "validation")


def test_nothing_is_held_out_without_shares() -> None:
    assert {split_of(text, 0, 0) for text in TEXTS} == {"train"}
