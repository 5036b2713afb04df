"""Classifiers as guards: what of a text they read, what passes, and what cannot be a guard; one that fails is closed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.guards import WordGuard, word_judge
from tests.serving import small_tokenizer

from lucidlm.checkpoint.save import save_model
from lucidlm.core.errors import InputError, LucidError
from lucidlm.inference.guard import Guard
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import SequenceClassifier
from lucidlm.predict.classifier import TextClassifier
from lucidlm.predict.guard import open_guard, windows

LONG = "the quick brown fox jumps over the lazy dog. " * 20


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return word_judge(tmp_path_factory.mktemp("judges") / "judge", "bad")


@pytest.fixture(scope="module")
def classifier(judge: Path) -> TextClassifier:
    return TextClassifier(judge)


def opened(*rules: str) -> Guard:
    guard = open_guard(rules, "cpu")
    assert guard is not None
    return guard


@pytest.mark.parametrize(
    ("text", "passed"),
    [("a good film", 0), ("a bad film", None), ("", 0), ("Badger", 0), (LONG, 0), (LONG + "bad", None)],
)
def test_what_passes(judge: Path, text: str, passed: int | None) -> None:
    for rule in (f"{judge}:bad<0.5", f"{judge}:fine>0.5"):
        (refusal,) = opened(rule).refusals([(text, 0)])
        assert (refusal is None) == (passed is not None)
        assert refusal is None or refusal.startswith(f"{rule}: the probability of ")


def test_one_bad_word_in_a_long_text_is_not_averaged_away(judge: Path, classifier: TextClassifier) -> None:
    halves = len(LONG) // 2
    guard = opened(f"{judge}:bad<0.5")
    for place in (0, halves, len(LONG)):
        assert guard.refusals([(LONG[:place] + " bad " + LONG[place:], 0)]) != [None]


def test_texts_are_judged_by_all_rules_and_together(tmp_path: Path, judge: Path) -> None:
    other = word_judge(tmp_path / "other", "坏话", ("好", "坏"), kind="characters")
    guard = opened(f"{judge}:bad<0.5", f"{other}:坏<0.5", f"{judge}:fine>0.1")
    found = guard.refusals([("good", 0), ("a bad one", 0), ("他说坏话了", 0), ("", 0)])
    assert [refusal is None for refusal in found] == [True, False, False, True]
    with pytest.raises(InputError, match=r"prompt 2: does not pass the guard .*坏<0.5: the probability of 坏 is 1.000"):
        guard.admit(["good", "坏话"])


def test_several_labels_at_once(tmp_path: Path) -> None:
    tokenizer = small_tokenizer().with_end()
    shape: dict[str, Any] = {"embedding_dim": 32, "num_heads": 2, "ff_dim": 32, "num_layers": 1}
    config = ModelConfig(vocab_size=tokenizer.vocab_size, context_length=64, causal=False, **shape)
    model = SequenceClassifier(config, ["rude", "false"], "mean", problem_type="multi_label_classification")
    save_model(model.eval(), tmp_path / "labels", tokenizer, provenance={"task": "multi-label"})
    (refusal,) = opened(f"{tmp_path / 'labels'}:false>0.999").refusals([("the fox", 0)])
    assert refusal is not None
    assert "the probability of false is" in refusal


class Letters:
    """What `windows` needs of a classifier: a token a letter, and two a Chinese one."""

    max_tokens = 12

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.zeros(sum(1 + (letter > "\u2e80") for letter in text)) for text in texts]


@settings(deadline=None)
@given(
    text=st.text(alphabet="ab 坏\n", max_size=120),
    passed=st.integers(0, 120),
)
def test_windows_fit_and_hold_what_is_new_with_what_is_around_it(text: str, passed: int) -> None:
    reader: Any = Letters()
    found = windows(text, passed, reader)
    assert all(len(ids) <= reader.max_tokens for ids in reader.encode(found))
    for start in range(len(text)):
        for size in range(1, 3):  # a little less than the half of a window of 12 tokens, two a letter
            part = text[start : start + size]
            if start + size > passed and text[passed:].strip() and part.strip():
                assert any(part.strip() in window for window in found)
    if len(reader.encode([text])[0]) <= reader.max_tokens and text[passed:].strip():
        assert found == [text.strip()]


def test_only_what_is_new_is_read_again(classifier: TextClassifier) -> None:
    assert len(windows(LONG, 0, classifier)) > 10
    assert len(windows(LONG, len(LONG) - 10, classifier)) == 1
    assert windows(LONG, len(LONG), classifier) == []


@pytest.mark.parametrize("text", ["a" * 500, "坏" * 300, "😀" * 200, " " * 400 + "x", "\n".join("ab" * 300)])
def test_texts_without_words_are_cut_too(classifier: TextClassifier, text: str) -> None:
    found = windows(text, 0, classifier)
    assert all(len(ids) <= classifier.max_tokens for ids in classifier.encode(found))
    assert max(map(len, found)) <= len(text)


def test_what_cannot_be_a_guard(judge: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no label 'toxic', but fine, bad"):
        open_guard([f"{judge}:toxic<0.5"], "cpu")
    with pytest.raises(InputError, match=r"not a classifier.* A guard is a model that was tuned for"):
        open_guard([f"{tiny_model}:toxic<0.5"], "cpu")
    with pytest.raises(InputError, match="no such model"):
        open_guard([f"{tmp_path / 'nothing'}:toxic<0.5"], "cpu")
    assert open_guard([], "cpu") is None


def test_a_classifier_that_fails_lets_nothing_pass(judge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory, say")

    guard = opened(f"{judge}:bad<0.5")
    monkeypatch.setattr(TextClassifier, "_logits", fail)
    with pytest.raises(LucidError, match=r"the guard .*bad<0.5: could not judge a text.*RuntimeError: out of memory"):
        guard.admit(["good"])
    (verdict,) = guard.verdicts([("good", 0)])
    assert isinstance(verdict, LucidError)


def test_a_text_that_cannot_be_judged_holds_up_no_other() -> None:
    first, second, third = WordGuard("bad", failing="odd").verdicts([("good", 0), ("odd", 0), ("bad", 0)])
    assert (first, third) == (None, "it says bad")
    assert isinstance(second, LucidError)
