"""Judging a classifier: baselines, paired comparison, and what is written down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lucidlm.core.errors import InputError, LucidError
from lucidlm.evaluate.baselines import MajorityClass, TfidfLogisticRegression, separates_no_words
from lucidlm.evaluate.runner import EVALUATION, evaluate_classifier, read_evaluation, write_evaluation
from lucidlm.tasks.classification import LabelledText, TextClassification

TASK = TextClassification(name="sentiment", description="")
LABELS = ["negative", "positive"]


class WordCounter:
    """Weighs the words that speak well of a film against those that do not."""

    labels = LABELS
    good = frozenset(
        ["good", "great", "best", "funny", "love", "moving", "wonderful", "powerful", "enjoyable", "charming"]
    )
    bad = frozenset(["bad", "worst", "dull", "boring", "mess", "lacks", "fails", "stupid", "awful", "nothing"])

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        score = np.array([sum((w in self.good) - (w in self.bad) for w in text.split()) for text in texts])
        positive = 1 / (1 + np.exp(-score))
        return np.stack([1 - positive, positive], axis=1)


def read(path: Path, count: int) -> list[LabelledText]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:count]]
    return [LabelledText(row["text"], row["label"], f"{path.name}:{n}") for n, row in enumerate(rows, 1)]


@pytest.fixture(scope="module")
def examples(shared_data: Path) -> list[LabelledText]:
    return read(shared_data / "sentiment/sst2/validation.jsonl", 400)


@pytest.fixture(scope="module")
def training(shared_data: Path) -> list[LabelledText]:
    return read(shared_data / "sentiment/sst2/train.jsonl", 2500)


def test_an_evaluation_holds_the_model_beside_its_baselines_and_is_read_back(
    examples: list[LabelledText], training: list[LabelledText], tmp_path: Path
) -> None:
    found, predictions = evaluate_classifier(
        WordCounter(), examples, TASK, name="words", data="sst2", training=training
    )
    majority, linear = found.baselines
    assert found.model.metrics["accuracy"].value == pytest.approx(np.trace(found.confusion) / len(examples))
    assert sum(map(sum, found.confusion)) == found.examples == 400
    assert majority.metrics["mcc"].value == 0
    assert linear.metrics["accuracy"].value > 0.7 > majority.metrics["accuracy"].value
    for rival in found.baselines:
        assert rival.advantage is not None
        difference = found.model.metrics["accuracy"].value - rival.metrics["accuracy"].value
        assert rival.advantage.value == pytest.approx(difference)
        assert rival.advantage.low <= difference <= rival.advantage.high

    write_evaluation(found, predictions, tmp_path)
    assert read_evaluation(tmp_path / EVALUATION) == found
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["where"] for line in lines] == [example.where for example in examples]
    right = sum(line["label"] == line["predicted"] for line in lines)
    assert right / 400 == pytest.approx(found.model.metrics["accuracy"].value)
    assert all(max(line["probabilities"], key=line["probabilities"].get) == line["predicted"] for line in lines[:50])


def test_the_digest_is_of_the_texts_and_labels(examples: list[LabelledText]) -> None:
    def digest(data: list[LabelledText]) -> str:
        return evaluate_classifier(WordCounter(), data, TASK, name="", data="")[0].data_sha256

    moved = [LabelledText(example.text, example.label, "elsewhere") for example in examples]
    changed = [LabelledText(examples[0].text, "positive", ""), LabelledText(examples[0].text, "negative", "")]
    assert digest(moved) == digest(examples)
    assert digest(changed) != digest(changed[::-1])


def test_chinese_is_counted_by_characters(shared_data: Path) -> None:
    folder = shared_data / "classification/thucnews-titles-zh"
    training, held_out = read(folder / "train.jsonl", 600), read(folder / "test.jsonl", 300)
    labels = sorted({example.label for example in training})
    task = TextClassification(name="topics", description="")
    model = TfidfLogisticRegression(labels).fit(
        [example.text for example in training], task.label_ids(training, labels)
    )
    assert "character 1–3" in model.name
    found, _ = evaluate_classifier(model, held_out, task, name="linear", data="thucnews")
    assert found.model.metrics["accuracy"].low > 0.4
    assert found.baselines == []


def test_scripts_are_told_apart() -> None:
    assert separates_no_words(["这部电影非常好看", "I like it"])
    assert separates_no_words(["とても面白い映画でした"])
    assert not separates_no_words(["A fine film, called 红高粱 in Chinese"])
    assert not separates_no_words(["아주 좋은 영화"])
    assert not separates_no_words(["12 !!"])


def test_a_label_the_baseline_never_saw_gets_no_probability() -> None:
    model = TfidfLogisticRegression(["a", "b", "c"]).fit(["one two", "three four"] * 4, np.array([0, 2] * 4))
    probabilities = model.predict_proba(["one two"])
    assert probabilities.shape == (1, 3)
    assert probabilities[0, 1] == 0
    assert probabilities.argmax() == 0
    assert MajorityClass(["a", "b"]).fit(["x"] * 4, np.array([1, 1, 0, 1])).predict_proba(["y"]).tolist() == [
        [0.25, 0.75]
    ]


@pytest.mark.parametrize(("texts", "truth"), [(["good", "fine"], [0, 0]), (["!", "?"], [0, 1])])
def test_a_baseline_that_cannot_learn_says_so(texts: list[str], truth: list[int]) -> None:
    with pytest.raises(InputError, match="the baseline cannot learn"):
        TfidfLogisticRegression(LABELS).fit(texts, np.array(truth))


def test_bad_input_is_refused(examples: list[LabelledText], tmp_path: Path) -> None:
    class Broken(WordCounter):
        def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
            return np.full((len(texts), 2), np.nan)

    with pytest.raises(InputError, match="there are no examples"):
        evaluate_classifier(WordCounter(), [], TASK, name="", data="d")
    with pytest.raises(LucidError, match="not finite"):
        evaluate_classifier(Broken(), examples, TASK, name="", data="d")
    (tmp_path / EVALUATION).write_text('{"task": "sentiment"')
    with pytest.raises(InputError, match="is not an evaluation"):
        read_evaluation(tmp_path / EVALUATION)
    with pytest.raises(InputError, match="file not found"):
        read_evaluation(tmp_path / "nowhere.json")
