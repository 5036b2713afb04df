"""Pairs of sentences: how rows are read, what is named where they cannot be, and how texts are put together and cut."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from lucidlm.baselines.text_pairs import MeanScore, OverlapClassifier, OverlapRegression
from lucidlm.core.errors import InputError
from lucidlm.data.examples.records import ClassPrediction, LabelledPair, NumberPrediction, ScoredPair
from lucidlm.metrics.similarity_metrics import similarity_metrics
from lucidlm.tasks import read_examples, tasks
from lucidlm.tokenize.text_pairs import PairFrame, fitting, with_pairs
from lucidlm.tokenize.tokenizer import Tokenizer


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


NLI = {"premise": "A dog runs.", "hypothesis": "An animal moves.", "label": "entailment"}
STS = {"sentence1": "A dog runs.", "sentence2": "An animal moves.", "score": 3.5}


def test_rows_are_read(tmp_path: Path) -> None:
    nli = read_examples(tasks.get("entailment"), write(tmp_path / "d.jsonl", NLI))
    assert nli == [LabelledPair("A dog runs.", "entailment", f"{tmp_path / 'd.jsonl'}:1", "An animal moves.")]
    scored = read_examples(tasks.get("similarity"), write(tmp_path / "s.jsonl", STS, STS | {"score": "4"}))
    assert [(one.text, one.other, one.score) for one in scored] == [
        ("A dog runs.", "An animal moves.", s) for s in (3.5, 4)
    ]
    fields = {"premise": "sentence1", "hypothesis": "sentence2", "label": "score"}
    renamed = read_examples(tasks.get("entailment"), str(tmp_path / "s.jsonl"), fields=fields)
    assert (renamed[0].text, renamed[0].label) == ("A dog runs.", "3.5")


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        ("entailment", {**NLI, "premise": " "}, r'd.jsonl:2: field "premise" holds no text'),
        ("entailment", {"premise": "x", "label": "y"}, r'd.jsonl:2: field "hypothesis" is missing'),
        ("entailment", {**NLI, "hypothesis": 3}, r'd.jsonl:2: field "hypothesis" holds a int, not a string'),
        ("entailment", {**NLI, "label": ""}, r'd.jsonl:2: field "label" is empty'),
        ("similarity", {**STS, "score": "high"}, r"d.jsonl:2: field \"score\" holds 'high', not a number"),
        ("similarity", {**STS, "score": True}, r'd.jsonl:2: field "score" holds True, not a number'),
        ("similarity", {**STS, "score": "inf"}, r"d.jsonl:2: field \"score\" holds 'inf', not a number"),
        ("similarity", {**STS, "score": None}, r'd.jsonl:2: field "score" is empty'),
    ],
)
def test_what_cannot_be_read_is_named_by_line(tmp_path: Path, task: str, row: dict, message: str) -> None:
    source = write(tmp_path / "d.jsonl", NLI if task == "entailment" else STS, row)
    with pytest.raises(InputError, match=message):
        read_examples(tasks.get(task), source)


def test_both_texts_tell_a_pair() -> None:
    task = tasks.get("entailment")
    one, other = LabelledPair("a", "yes", "f:1", "b"), LabelledPair("a", "yes", "f:2", "c")
    assert task.key(one) != task.key(other)
    assert task.texts(one) == ("a", "b")


def test_paraphrases_have_names_and_an_f1() -> None:
    task = tasks.get("paraphrase")
    examples = [LabelledPair("a", label, "f:1", "b") for label in "1010110"]
    labels = task.discover_labels(examples)
    assert labels == ["different", "paraphrase"]
    answers = [ClassPrediction(tuple(labels), (1.0 - p, float(p))) for p in (1, 1, 0, 0, 1, 1, 0)]
    found = {metric.name: metric(examples, answers) for metric in task.metrics(examples)}
    assert list(found)[:3] == ["accuracy", "f1", "macro_f1"]
    assert found["f1"] == pytest.approx(f1_score([1, 0, 1, 0, 1, 1, 0], [1, 1, 0, 0, 1, 1, 0]))
    others = [LabelledPair("a", label, "f:1", "b") for label in ("same", "other")]
    assert "f1" not in [metric.name for metric in task.metrics(others)]


@pytest.mark.parametrize("seed", range(4))
def test_correlations_agree_with_scipy(seed: int) -> None:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 11, 60) / 2 + 1000 * (seed == 3)  # with ties, and far from zero
    given = (0.3 * truth + generator.normal(size=60)).round(1)
    examples = [ScoredPair("a", "b", score, "f:1") for score in truth]
    answers = [NumberPrediction(value) for value in given]
    pearson, spearman = similarity_metrics()
    assert pearson(examples, answers) == pytest.approx(stats.pearsonr(truth, given).statistic)
    assert spearman(examples, answers) == pytest.approx(stats.spearmanr(truth, given).statistic)
    half = pearson.statistics(examples, answers)[:30].sum(0)
    assert float(pearson.value(half)) == pytest.approx(stats.pearsonr(truth[:30], given[:30]).statistic)
    constant = MeanScore().fit(examples).predict(examples)
    assert (pearson(examples, constant), spearman(examples, constant)) == (0, 0)


def test_overlap_tells_pairs_with_common_words() -> None:
    topics = [f"word{n} thing{n} item{n}" for n in range(40)]
    same = [LabelledPair(text, "same", "f:1", f"{text} too") for text in topics]
    apart = [LabelledPair(text, "apart", "f:1", other) for text, other in pairwise(topics)]
    answers = OverlapClassifier().fit([*same, *apart]).predict([*same, *apart])
    assert [answer.label for answer in answers] == ["same"] * 40 + ["apart"] * 39
    scored = [ScoredPair(one.text, one.other, 5.0 * (one.label == "same"), "f:1") for one in (*same, *apart)]
    found = OverlapRegression().fit(scored).predict(scored)
    assert similarity_metrics()[0](scored, found) > 0.95
    with pytest.raises(InputError, match="two labels or more"):
        OverlapClassifier().fit(same)


# ---------------------------------------------------------------------- two texts as the model reads them


def test_an_end_of_text_stands_between(tiny_data: Path) -> None:
    tokenizer = Tokenizer.load(tiny_data)
    assert PairFrame.of(tokenizer).between == ()
    paired = with_pairs(tokenizer.with_end())
    end = tokenizer.eos_id
    assert PairFrame.of(paired) == PairFrame((), (end,), (end,))
    assert with_pairs(paired) is paired
    assert paired.suffix == [end]  # a single text is read as before
    found = paired.core.encode("a film", "the plot")
    first, second = (np.array(ids) for ids in paired.encode_batch(["a film", "the plot"]))
    assert found.ids == PairFrame.of(paired).joined(first, second).tolist()


@pytest.mark.parametrize(
    ("first", "second", "room", "kept"),
    [(3, 4, 7, (3, 4)), (3, 9, 7, (3, 4)), (9, 3, 7, (4, 3)), (9, 9, 7, (3, 4)), (10, 9, 7, (4, 3)), (0, 9, 7, (0, 7))],
)
def test_the_longer_text_is_cut(first: int, second: int, room: int, kept: tuple[int, int]) -> None:
    assert fitting(first, second, room) == kept
