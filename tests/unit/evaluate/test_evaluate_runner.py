"""Judging a model: baselines, paired comparison, resuming, and what is written down."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lucidlm.core.errors import InputError, LucidError
from lucidlm.data.examples.records import ClassPrediction, GeneratedText, LabelledText, Pair
from lucidlm.evaluate import answers
from lucidlm.evaluate.answers import PARTIAL
from lucidlm.evaluate.comparison import compare_evaluations, holm
from lucidlm.evaluate.record import EVALUATION, PREDICTIONS, STATISTICS, Evaluation, read_evaluation, read_statistics
from lucidlm.evaluate.runner import evaluate_task
from lucidlm.report.results import write_results
from lucidlm.report.run import report_run
from lucidlm.tasks import tasks
from lucidlm.tasks.text_classification import TextClassification
from lucidlm.tokenize.conversation import Chat, Message

TASK = TextClassification(name="sentiment", description="", synonyms={"0": "negative", "1": "positive"})
GOOD = frozenset(["good", "great", "best", "funny", "love", "moving", "wonderful", "powerful", "enjoyable", "charming"])
BAD = frozenset(["bad", "worst", "dull", "boring", "mess", "lacks", "fails", "stupid", "awful", "nothing"])


class WordCounter:
    """Weighs the words that speak well of a film against those that do not; `shy` makes it doubt.

    After `patience` calls it is stopped from the keyboard.
    """

    labels = ("negative", "positive")

    def __init__(self, shy: float = 1.0, patience: int = 10**9) -> None:
        self.shy, self.patience, self.answered = shy, patience, 0

    def predict(self, examples: Sequence[LabelledText], label: str | None = None) -> list[ClassPrediction]:
        if not self.patience:
            raise KeyboardInterrupt
        self.patience -= 1
        self.answered += len(examples)
        return [self.judge(example.text) for example in examples]

    def judge(self, text: str) -> ClassPrediction:
        score = sum((word in GOOD) - (word in BAD) for word in text.split())
        positive = float(1 / (1 + np.exp(-self.shy * score)))
        return ClassPrediction(self.labels, (1 - positive, positive))


class Stubborn(WordCounter):
    """Loves everything."""

    def judge(self, text: str) -> ClassPrediction:
        return ClassPrediction(self.labels, (0.1, 0.9))


def read(path: Path, count: int) -> list[LabelledText]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:count]]
    return [LabelledText(row["text"], row["label"], f"{path.name}:{n}") for n, row in enumerate(rows, 1)]


@pytest.fixture(scope="module")
def examples(shared_data: Path) -> list[LabelledText]:
    return read(shared_data / "sentiment/sst2/validation.jsonl", 400)


@pytest.fixture(scope="module")
def training(shared_data: Path) -> list[LabelledText]:
    return read(shared_data / "sentiment/sst2/train.jsonl", 2500)


def made_up(count: int = 60) -> list[LabelledText]:
    texts = [f"a {'good' if n % 3 else 'dull'} film number {n}" for n in range(count)]
    return [
        LabelledText(t, "positive" if n % 3 and n % 7 else "negative", f"f.jsonl:{n + 1}") for n, t in enumerate(texts)
    ]


def judged(out: Path, model: Any = None, **options: Any) -> Evaluation:
    options = {"name": "words", "data": "d", "out": out, "fingerprint": "words", **options}
    return evaluate_task(TASK, model or WordCounter(), options.pop("examples", None) or made_up(), **options)


def test_an_evaluation_holds_the_model_beside_its_baselines_and_is_read_back(
    examples: list[LabelledText], training: list[LabelledText], tmp_path: Path
) -> None:
    found = judged(tmp_path, examples=examples, training=training)
    assert found.confusion is not None
    majority, bayes, linear = found.baselines
    assert found.first.name == "accuracy"
    assert found.model.metrics["accuracy"].value == pytest.approx(np.trace(found.confusion) / len(examples))
    assert sum(map(sum, found.confusion)) == found.examples == 400
    assert majority.metrics["mcc"].value == 0
    for counted in (bayes, linear):
        assert counted.metrics["accuracy"].value > 0.7 > majority.metrics["accuracy"].value
    for rival in found.baselines:
        assert rival.comparison is not None
        difference = found.model.metrics["accuracy"].value - rival.metrics["accuracy"].value
        assert rival.comparison.difference.value == pytest.approx(difference)
        assert rival.comparison.difference.low <= difference <= rival.comparison.difference.high

    assert read_evaluation(tmp_path / EVALUATION) == found
    lines = [json.loads(line) for line in (tmp_path / PREDICTIONS).read_text(encoding="utf-8").splitlines()]
    assert [line["where"] for line in lines] == [example.where for example in examples]
    right = sum(line["label"] == line["predicted"] for line in lines)
    assert right / 400 == pytest.approx(found.model.metrics["accuracy"].value)
    assert sum(line["score"] for line in lines) == right
    assert len(read_statistics(tmp_path)["accuracy"]) == 400
    assert not (tmp_path / PARTIAL).exists()


def test_the_same_evaluation_gives_the_same_files(tmp_path: Path) -> None:
    for place in ("first", "second"):
        judged(tmp_path / place, training=made_up())
    for name in (PREDICTIONS, STATISTICS):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    first, second = (read_evaluation(tmp_path / place / EVALUATION) for place in ("first", "second"))
    assert first.model.metrics == second.model.metrics
    assert [score.comparison for score in first.baselines] == [score.comparison for score in second.baselines]


def test_the_digest_is_of_what_examples_hold() -> None:
    def digest(data: list[LabelledText]) -> str:
        return evaluate_task(TASK, WordCounter(), data, name="", data="").data_sha256

    texts = made_up(4)
    moved = [LabelledText(example.text, example.label, "elsewhere") for example in texts]
    assert digest(moved) == digest(texts)
    assert digest(texts) != digest(texts[::-1])


def test_baselines_may_learn_from_another_spelling_of_the_labels(tmp_path: Path) -> None:
    spelt = [LabelledText(e.text, "1" if e.label == "positive" else "0", e.where) for e in made_up()]
    spelt.append(LabelledText("fine", "positive", "f.jsonl:99"))
    found = judged(tmp_path, training=spelt)
    plain = judged(tmp_path, training=[*made_up(), spelt[-1]])
    assert found.baselines[0].metrics["macro_f1"] == plain.baselines[0].metrics["macro_f1"]


def test_it_goes_on_where_it_stood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "CHARACTERS", 300)
    whole = judged(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        judged(tmp_path / "stopped", WordCounter(patience=2))
    partial = tmp_path / "stopped" / PARTIAL
    with partial.open("a") as file:
        file.write('{"row": 3, "answ')  # cut short by a crash
    model = WordCounter()
    found = judged(tmp_path / "stopped", model)
    assert 0 < model.answered < found.examples
    assert found.model.metrics == whole.model.metrics
    assert (tmp_path / "stopped" / PREDICTIONS).read_bytes() == (tmp_path / "whole" / PREDICTIONS).read_bytes()
    assert not partial.exists()


@pytest.mark.parametrize("change", [{"fingerprint": "another"}, {"examples": made_up(59)}, {"resume": False}])
def test_answers_of_another_model_or_to_other_data_are_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(answers, "CHARACTERS", 300)
    with pytest.raises(KeyboardInterrupt):
        judged(tmp_path, WordCounter(patience=2))
    model = WordCounter()
    found = judged(tmp_path, model, **change)
    assert model.answered == found.examples
    assert ("thrown away" in capfd.readouterr().err) == ("resume" not in change)


def test_models_are_compared_in_pairs(tmp_path: Path) -> None:
    examples = made_up(200)
    for name, model in (("words", WordCounter()), ("shy", WordCounter(shy=0.5)), ("stubborn", Stubborn())):
        judged(tmp_path / name, model, examples=examples, name=name, fingerprint=name)
    places = [tmp_path / name for name in ("words", "shy", "stubborn")]
    same, better, also = compare_evaluations(places)
    assert "no difference shown" in str(same)
    assert same.comparison.p_value == 1
    assert "words against stubborn, accuracy: better (+" in str(better)
    (alone,) = compare_evaluations([places[2], places[0]])
    assert "worse (-" in str(alone)
    assert also.comparison.p_value >= alone.comparison.p_value
    assert "mcc" in str(compare_evaluations(places[:2], "mcc")[0])

    with pytest.raises(InputError, match="has no metric 'bleu'"):
        compare_evaluations(places, "bleu")
    with pytest.raises(InputError, match="two evaluations or more"):
        compare_evaluations(places[:1])
    judged(tmp_path / "other", examples=examples[1:])
    with pytest.raises(InputError, match="not the same examples"):
        compare_evaluations([places[0], tmp_path / "other"])
    (places[1] / STATISTICS).write_bytes((tmp_path / "other" / STATISTICS).read_bytes())
    with pytest.raises(InputError, match=r"statistics\.npz: does not agree"):
        compare_evaluations(places)
    (places[1] / STATISTICS).write_bytes(b"PK")
    with pytest.raises(InputError, match=r"statistics\.npz: is damaged"):
        compare_evaluations(places)


class Translator:
    """Writes the sources again, at so many nats in so many tokens each."""

    def __init__(self, nats: float = 6.0, tokens: int = 3) -> None:
        self.cost = nats, tokens

    def predict(self, examples: Sequence[Pair], label: str | None = None) -> list[GeneratedText]:
        return [GeneratedText(example.source, *self.cost) for example in examples]


def test_models_that_write_are_compared_and_reported(tmp_path: Path) -> None:
    task = tasks.get("translation")
    pairs = [Pair(f"line {n} is here", f"line {n} is there", (f"line {n} is there",), f"p:{n}") for n in range(12)]
    for name, model in (("a", Translator()), ("b", Translator(5.0)), ("c", Translator(tokens=2))):
        out = tmp_path / name
        found = evaluate_task(task, model, pairs, name=name, data="p", training=pairs, out=out, fingerprint=name)
    assert found.model.metrics["perplexity"].value == pytest.approx(np.exp(3))
    assert found.labels is found.confusion is None
    assert found.first.signature

    (difference,) = compare_evaluations([tmp_path / "a", tmp_path / "b"], "perplexity")
    assert "worse" in str(difference)
    with pytest.raises(InputError, match="different tokens"):
        compare_evaluations([tmp_path / "a", tmp_path / "c"], "perplexity")
    report_run([tmp_path / "a"], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "line 3 is there" in page
    assert "Confusion matrix" not in page
    write_results([tmp_path], tmp_path / "results.md")
    assert "| **a** |" in (tmp_path / "results.md").read_text("utf-8")


def test_every_task_names_its_metrics_before_there_are_examples() -> None:
    for name in tasks:
        assert tasks.get(name).metrics(())


def test_p_values_rise_with_the_number_of_comparisons() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_bad_input_is_refused(tmp_path: Path) -> None:
    class Broken(WordCounter):
        def judge(self, text: str) -> ClassPrediction:
            return ClassPrediction(self.labels, (float("nan"), float("nan")))

    with pytest.raises(InputError, match="there are no examples"):
        evaluate_task(TASK, WordCounter(), [], name="", data="d")
    with pytest.raises(LucidError, match="not finite"):
        judged(tmp_path, Broken())
    model = WordCounter()
    with pytest.raises(InputError, match=r"t\.jsonl:7: the label 'mixed' is not one the model knows"):
        judged(tmp_path, model, examples=[LabelledText("a", "mixed", "t.jsonl:7")])
    assert model.answered == 0  # refused before the work begins


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / EVALUATION
    for text, complaint in (
        ('{"task": "sentiment"', "is not valid JSON"),
        ('{"format": 1}', "has format 1, this version reads 2"),
        ('{"format": 2, "task": "sentiment"}', "is not an evaluation .data: Field required"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=complaint):
            read_evaluation(path)
    with pytest.raises(InputError, match="file not found"):
        read_evaluation(tmp_path / "nowhere.json")


def test_what_a_baseline_lacks_is_left_out_and_does_not_decide(tmp_path: Path) -> None:
    """A dictionary writes without probabilities: it has no perplexity, and is compared by what it has."""
    task = tasks.get("dialogue")
    chats = [
        Chat(
            (Message("user", f"What is {n} and {n}?"), Message("assistant", f"It is {2 * n}, I think.")), f"c.jsonl:{n}"
        )
        for n in range(1, 13)
    ]

    class Talker:
        def predict(self, examples: Sequence[Chat], label: str | None = None) -> list[GeneratedText]:
            return [GeneratedText(example.messages[-1].content, nats=10.0, tokens=5) for example in examples]

    found = evaluate_task(task, Talker(), chats[:6], name="talker", data="c", training=chats[6:], out=tmp_path)
    assert found.first.name != "perplexity"
    assert found.model.metrics["perplexity"].value == pytest.approx(math.exp(2))
    assert found.baselines
    for rival in found.baselines:
        assert "perplexity" not in rival.metrics
        assert rival.comparison is not None
        assert rival.comparison.difference.value > 0
    assert read_evaluation(tmp_path / EVALUATION) == found
