"""Multi-label metrics agree with scikit-learn, thresholds are the best there are, and baselines know odd data."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from lucidlm.baselines.multi_label_classifiers import CommonestLabelSet, TfidfPerLabel
from lucidlm.data.examples.records import MultiLabelPrediction, MultiLabelText
from lucidlm.metrics.multi_label_metrics import f1_thresholds, indicators, multi_label_metrics

LABELS = ("a", "b", "c", "d")
METRICS = {metric.name: metric for metric in multi_label_metrics()}


def drawn(seed: int, share: float) -> tuple[list[MultiLabelText], list[MultiLabelPrediction], np.ndarray, np.ndarray]:
    """Return examples, predictions, and both as indicators (n, k)."""
    generator = np.random.default_rng(seed)
    truth, chosen = (generator.random((40, len(LABELS))) < share for _ in range(2))
    names = [tuple(np.array(LABELS)[row].tolist()) for row in truth]
    examples = [MultiLabelText("a text", labels, "a") for labels in names]
    predictions = [MultiLabelPrediction(LABELS, tuple(row.astype(float)), (0.5,) * len(LABELS)) for row in chosen]
    return examples, predictions, truth, chosen


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.8])
@pytest.mark.parametrize("seed", range(5))
def test_metrics_agree_with_scikit_learn(seed: int, share: float) -> None:
    examples, predictions, truth, chosen = drawn(seed, share)
    found = {name: metric(examples, predictions) for name, metric in METRICS.items()}
    assert found["micro_f1"] == pytest.approx(reference.f1_score(truth, chosen, average="micro", zero_division=0))
    macro = reference.f1_score(truth, chosen, average="macro", zero_division=np.nan)  # type: ignore[arg-type]
    assert found["macro_f1"] == pytest.approx(np.nan_to_num(macro))
    assert found["exact_match"] == pytest.approx(reference.accuracy_score(truth, chosen))
    half = METRICS["micro_f1"].statistics(examples, predictions)[:20].sum(0)
    by_half = reference.f1_score(truth[:20], chosen[:20], average="micro", zero_division=0)
    assert float(METRICS["micro_f1"].value(half)) == pytest.approx(by_half)


def test_a_label_that_the_model_does_not_know_is_one_it_misses() -> None:
    found = MultiLabelPrediction(("a",), (0.9,), (0.5,))
    assert METRICS["micro_f1"]([MultiLabelText("x", ("a", "z"), "f:1")], [found]) == pytest.approx(2 / 3)
    assert METRICS["macro_f1"]([MultiLabelText("x", ("a", "z"), "f:1")], [found]) == pytest.approx(1 / 2)


@pytest.mark.parametrize("decimals", [1, 6])
@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_gives_a_better_f1(seed: int, decimals: int) -> None:
    generator = np.random.default_rng(seed)
    truth = generator.random((200, 3)) < (0.1, 0.3, 0.6)
    scores = np.clip(0.25 * truth + generator.random((200, 3)) * 0.6, 0, 1).round(decimals)
    found = f1_thresholds(truth, scores)
    for label in range(3):
        tried = [reference.f1_score(truth[:, label], scores[:, label] >= cut) for cut in np.unique(scores[:, label])]
        assert reference.f1_score(truth[:, label], scores[:, label] >= found[label]) == pytest.approx(max(tried))


def test_few_texts_choose_no_threshold() -> None:
    truth = np.zeros((100, 3), dtype=bool)
    truth[:9, 0], truth[:10, 1], truth[:91, 2] = True, True, True
    assert f1_thresholds(truth, np.where(truth, 0.3, 0.1)).tolist() == [0.5, pytest.approx(0.2), 0.5]


def test_half_stays_where_nothing_is_better() -> None:
    truth = np.arange(40)[:, None] < 20
    assert f1_thresholds(truth, np.where(truth, 0.9, 0.2)).tolist() == [0.5]


def labelled(*sets: str) -> list[MultiLabelText]:
    return [MultiLabelText(f"number {n} {' '.join(labels)}", tuple(labels), f"f:{n}") for n, labels in enumerate(sets)]


def test_the_commonest_set() -> None:
    baseline = CommonestLabelSet().fit(labelled("ab", "a", "ba", "b", "c"))
    assert [answer.chosen for answer in baseline.predict(labelled("", "c"))] == [("a", "b")] * 2
    assert CommonestLabelSet().fit(labelled("", "", "a")).predict(labelled("a"))[0].chosen == ()


@pytest.mark.parametrize("sets", [("a",) * 3, ("", "a"), ("a",), ("ab", "a", "a"), ("", "")])
def test_the_linear_baseline_on_labels_that_are_no_question(sets: tuple[str, ...]) -> None:
    training = labelled(*sets)
    for answer, example in zip(TfidfPerLabel().fit(training).predict(training), training, strict=True):
        always = set.intersection(*(set(labels) for labels in sets))
        assert always <= set(answer.chosen)
        assert len(answer.labels) == len({label for labels in sets for label in labels}), example


def test_the_linear_baseline_learns() -> None:
    words = {"a": "rain storm cloud", "b": "goal match striker"}
    sets = ["", "a", "b", "ab"] * 50
    training = [
        MultiLabelText(" ".join([f"no {n}", *(words[label] for label in labels)]), tuple(labels), f"f:{n}")
        for n, labels in enumerate(sets)
    ]
    baseline = TfidfPerLabel().fit(training)
    assert baseline.name == "TF-IDF (word 1–2-grams) + logistic regression"
    answers = baseline.predict(training)
    assert METRICS["exact_match"](training, answers) == 1
    assert indicators([answer.chosen for answer in answers], baseline.labels).sum() == 200
