"""Fine-tuning for pairs of sentences: from tiny data to models that beat the constant answer."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lucidlm.checkpoint.load import load_model
from lucidlm.core.errors import InputError
from lucidlm.evaluate.config import EvaluateConfig
from lucidlm.evaluate.directory import evaluate_directory
from lucidlm.evaluate.record import PREDICTIONS
from lucidlm.explain.predictions import predict
from lucidlm.model.heads import SequenceClassifier
from lucidlm.predict.classifier import TextClassifier
from lucidlm.predict.pair_classifier import PairClassifier, PairScorer
from lucidlm.tasks import tasks
from lucidlm.tasks.base.parts import read_parts
from lucidlm.train.finetune.config import FinetuneConfig, RegressionConfig
from lucidlm.train.finetune.pair_objective import PairObjective
from lucidlm.train.finetune.run import build_objective, finetune
from lucidlm.train.loop import LoopConfig

SIDES = {"good": ["wonderful", "brilliant", "superb"], "bad": ["dreadful", "boring", "awful"]}
THINGS = ["film", "plot", "camera", "ending", "story"]


def sentence(draw: random.Random, side: str) -> str:
    """Return a sentence of one side, unlike any other."""
    return f"{draw.choice(SIDES[side])} {draw.choice(THINGS)} {draw.choice(SIDES[side])} {draw.randint(1000, 9999)}"


def pairs(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return pairs whose sentences are on one side or not, whatever words they share."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        first = ("good", "bad")[number % 2]
        # The premise alone tells nothing of the label, and the hypothesis a little: what is learned is tiny, too.
        second = draw.choice(("good", "good", "bad") if first == "good" else ("bad", "bad", "bad", "good"))
        rows.append({"premise": sentence(draw, first), "hypothesis": sentence(draw, second), "label": first + second})
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def configured(task: str, model: Path, data: Path, **fields: Any) -> FinetuneConfig:
    loop = LoopConfig(**{"max_steps": 1, "evaluations": 2, "patience": 100, **fields.pop("loop", {})})
    return FinetuneConfig(task=task, model=str(model), data=str(data), device="cpu", loop=loop, **fields)


@pytest.fixture(scope="module")
def nli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("pairs") / "nli.jsonl", pairs(400))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, nli: Path) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "judge"
    finetune(
        configured(
            "entailment", tiny_model, nli, test=0.2, validation=0.1, dropout=0.0, loop={"max_steps": 160}, epochs=20
        ),
        out,
    )
    return out


def test_a_classifier_of_pairs_beats_the_commonest_label(judge: Path, nli: Path, tmp_path: Path) -> None:
    found = evaluate_directory(judge, EvaluateConfig(task="entailment", data=str(nli)), tmp_path / "own")
    constant, overlap = found.baselines
    assert (constant.name, overlap.name) == ("majority class", "word overlap + logistic regression")
    assert found.model.metrics["accuracy"].value > 0.8
    assert constant.comparison is not None
    assert constant.comparison.shown
    assert found.labels == ["badbad", "badgood", "goodbad", "goodgood"]
    assert found.confusion is not None
    assert sum(map(sum, found.confusion)) == found.examples
    line = json.loads((tmp_path / "own" / PREDICTIONS).read_text("utf-8").splitlines()[0])
    assert list(line) == ["premise", "hypothesis", "label", "predicted", "probabilities", "score", "where"]


def test_the_order_of_the_texts_matters(judge: Path) -> None:
    answer = PairClassifier(judge, device="cpu")
    good, bad = "wonderful film superb 1234", "awful plot boring 5678"
    assert [one.label for one in answer([good, bad], [bad, good])] == ["goodbad", "badgood"]
    assert answer(good, bad).label == "goodbad"
    with pytest.raises(InputError, match="2 texts and 1 others"):
        answer([good, bad], [good])


def test_a_model_of_pairs_is_no_model_of_single_texts(judge: Path) -> None:
    with pytest.raises(InputError, match=r"classification of pairs, not for .* of single texts.*PairClassifier"):
        TextClassifier(judge)
    with pytest.raises(InputError, match="not for regression of pairs"):
        PairScorer(judge)
    with pytest.raises(InputError, match="reads pairs, which is not explained yet"):
        predict(load_model(judge), "a film")


def test_an_unknown_label_is_named(judge: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.jsonl", [*pairs(3), {"premise": "x", "hypothesis": "y", "label": "neutral"}])
    with pytest.raises(InputError, match=r"other.jsonl:4: the label 'neutral'"):
        evaluate_directory(judge, EvaluateConfig(task="entailment", data=str(other)), tmp_path / "out")


def test_long_pairs_are_cut_and_counted(tiny_model: Path, nli: Path) -> None:
    config = configured("entailment", tiny_model, nli, max_length=12, token_dropout=0.0)
    task = tasks.get("entailment")
    objective = build_objective(config, task, load_model(tiny_model), read_parts(config, task), torch.device("cpu"))
    assert isinstance(objective, PairObjective)
    batch = objective.collate(np.arange(8), np.random.default_rng(0))
    assert batch.lengths.tolist() == [12] * 8
    end = objective.tokenizer.eos_id
    assert ((batch.tokens == end).sum(1) == 2).all()
    assert batch.tokens[:, -1].tolist() == [end] * 8
    assert batch.token_type_ids is not None
    assert (batch.token_type_ids.sum(1) == 6).all()  # five tokens of each text, ends after both
    assert "pairs are longer than 10 tokens" in objective.report()[-1]
    assert objective.predictor.long_inputs(objective.train)["inputs cut"] == len(objective.train)  # type: ignore[attr-defined]


def test_a_number_for_each_pair(tiny_model: Path, tmp_path: Path) -> None:
    # How many of the two sentences praise: learned in seconds, which whether both are alike is not.
    rows = [
        {"a": row["premise"], "b": row["hypothesis"], "gold": row["label"].count("good")} for row in pairs(400, seed=1)
    ]
    data, out = write(tmp_path / "sts.jsonl", rows), tmp_path / "scorer"
    fields = {"sentence1": "a", "sentence2": "b", "score": "gold"}
    config = configured(
        "similarity", tiny_model, data, fields=fields, test=0.2, validation=0.1, loop={"max_steps": 150}, epochs=20
    )
    assert type(config) is RegressionConfig
    finetune(config, out)
    found = evaluate_directory(out, EvaluateConfig(task="similarity", data=str(data)), tmp_path / "own")
    assert [measure.name for measure in found.measures] == ["pearson", "spearman"]
    assert found.model.metrics["pearson"].value > 0.5
    mean, linear = found.baselines
    assert (mean.name, linear.name) == ("mean", "word overlap + linear regression")
    assert mean.metrics["pearson"].value == 0
    assert mean.comparison is not None
    assert mean.comparison.shown
    model = load_model(out).model
    assert isinstance(model, SequenceClassifier)
    assert (model.problem_type, model.labels) == ("regression", ["score"])
    score = PairScorer(out, device="cpu")
    both, none = score(
        ["wonderful plot superb 5678", "awful plot boring 5678"],
        ["superb story brilliant 1234", "boring story awful 1"],
    )
    assert both.value > none.value + 0.5


def test_settings_of_labels_are_refused_for_numbers() -> None:
    with pytest.raises(InputError, match="class_weights is a setting of text classification, not of similarity"):
        FinetuneConfig.parse({"task": "similarity", "model": "m", "data": "d", "class_weights": "balanced"}, "x")
