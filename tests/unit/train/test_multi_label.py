"""Fine-tuning for several labels a text: from tiny data to a model that beats the commonest set of labels."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from lucidlm.checkpoint.load import load_model
from lucidlm.core.errors import InputError
from lucidlm.evaluate.config import EvaluateConfig
from lucidlm.evaluate.directory import evaluate_directory
from lucidlm.evaluate.record import PREDICTIONS
from lucidlm.explain.predictions import predict
from lucidlm.metrics.multi_label_metrics import f1_thresholds
from lucidlm.predict.classifier import TextClassifier
from lucidlm.predict.multi_label_classifier import MultiLabelClassifier
from lucidlm.tasks import tasks
from lucidlm.tasks.base.parts import read_parts
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.multi_label_objective import MultiLabelObjective
from lucidlm.train.finetune.run import build_objective, finetune
from lucidlm.train.loop import LoopConfig

WORDS = {
    "film": ["film", "plot", "camera", "acting"],
    "people": ["director", "writer", "heroine", "critic"],
    "praise": ["wonderful", "brilliant", "moving", "superb"],
}
FILLER = ["while", "because", "although", "since", "before", "after"]


def tagged(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return texts with none to three labels; words of a label tell that it holds."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        labels = [label for label in WORDS if draw.random() < 0.4]
        words = [draw.choice(WORDS[label]) for label in labels for _ in range(3)]
        words += [draw.choice(FILLER) for _ in range(3)]
        draw.shuffle(words)
        rows.append({"text": " ".join([*words, str(draw.randint(1000, 9999))]), "labels": labels})
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def configured(model: Path, data: Path, **fields: Any) -> FinetuneConfig:
    loop = LoopConfig(**{"max_steps": 1, "evaluations": 2, "patience": 100, **fields.pop("loop", {})})
    return FinetuneConfig(task="multi-label", model=str(model), data=str(data), device="cpu", loop=loop, **fields)


def built(config: FinetuneConfig) -> MultiLabelObjective:
    task = tasks.get("multi-label")
    found = build_objective(config, task, load_model(config.model), read_parts(config, task), torch.device("cpu"))
    assert isinstance(found, MultiLabelObjective)
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("tagged") / "tagged.jsonl", tagged(500))


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, data: Path) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "tagger"
    config = configured(tiny_model, data, validation=0.2, test=0.2, dropout=0.0, loop={"max_steps": 240}, epochs=40)
    finetune(config, out)
    return out


def test_it_beats_the_commonest_set_of_labels(tagger: Path, data: Path, tmp_path: Path) -> None:
    found = evaluate_directory(tagger, EvaluateConfig(task="multi-label", data=str(data)), tmp_path / "own")
    assert [measure.name for measure in found.measures] == ["micro_f1", "macro_f1", "exact_match"]
    constant, linear = found.baselines
    assert found.model.metrics["micro_f1"].value > 0.8
    assert found.model.metrics["exact_match"].value > 2 * constant.metrics["exact_match"].value
    assert constant.comparison is not None
    assert constant.comparison.shown
    assert linear.metrics["micro_f1"].value > 0.9
    assert (found.labels, found.confusion) == (list(WORDS), None)
    lines = [json.loads(line) for line in (tmp_path / "own" / PREDICTIONS).read_text("utf-8").splitlines()]
    assert set(lines[0]) == {"text", "labels", "predicted", "probabilities", "score", "where"}
    assert any(len(line["predicted"]) > 1 for line in lines)
    # The score of a text whose labels are all found is 1.
    assert all(line["score"] == 1 for line in lines if line["labels"] and set(line["labels"]) == set(line["predicted"]))


def test_thresholds_and_labels_are_saved_and_used(tagger: Path, tiny_model: Path, data: Path) -> None:
    loaded = load_model(tagger)
    thresholds = loaded.record["provenance"]["thresholds"]
    assert list(thresholds) == loaded.record["labels"] == list(WORDS)
    tag = MultiLabelClassifier(tagger)
    parts = read_parts(configured(tiny_model, data, validation=0.2, test=0.2), tasks.get("multi-label"))
    truth = np.array([[label in example.labels for label in WORDS] for example in parts["validation"]])
    found = tag.predict_proba([example.text for example in parts["validation"]])
    assert list(thresholds.values()) == pytest.approx(f1_thresholds(truth, found))
    assert tag.thresholds == tuple(thresholds.values())
    answer = tag("wonderful brilliant director superb writer critic")
    assert set(answer.chosen) == {"people", "praise"}
    assert tag(["while because since before", "wonderful superb moving"])[1].chosen == ("praise",)
    assert all(0 < probability < 1 for probability in answer.probabilities)
    loose = tuple(p for p in tag.predict_proba(["wonderful brilliant director superb writer critic"])[0])
    assert loose == pytest.approx(answer.probabilities)


def test_a_model_for_one_label_is_another_kind(tagger: Path) -> None:
    with pytest.raises(
        InputError, match=r"multi label classification of single texts, not for single.*MultiLabelClassifier"
    ):
        TextClassifier(tagger)


def test_an_unknown_label_of_other_data_is_named(tagger: Path, tiny_model: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.jsonl", [*tagged(3), {"text": "x y", "labels": ["film", "music"]}])
    with pytest.raises(InputError, match=r"other.jsonl:4: the label 'music' is not one the model knows"):
        evaluate_directory(tagger, EvaluateConfig(task="multi-label", data=str(other)), tmp_path / "out")
    config = configured(tiny_model, write(tmp_path / "d.jsonl", tagged(20)), validation_data=str(other))
    with pytest.raises(InputError, match=r"other.jsonl:4: the label 'music'"):
        built(config)


def test_a_label_that_is_held_out_whole_is_known(tiny_model: Path, tmp_path: Path) -> None:
    """Which texts are held out is told by their hash alone; no label may make that an error."""
    rows = [{"text": row["text"], "labels": [str(n)]} for n, row in enumerate(tagged(40))]
    objective = built(configured(tiny_model, write(tmp_path / "d.jsonl", rows), validation=0.2, test=0.2))
    assert len(objective.classifier.labels) == 40
    assert 5 < len(objective.unseen) < 30
    assert "so that they are never chosen" in objective.report()[1]


def test_the_loss_is_binary_cross_entropy_of_each_label(tiny_model: Path, data: Path) -> None:
    objective = built(configured(tiny_model, data, token_dropout=0.0, dropout=0.0))
    batch = objective.collate(np.arange(8), np.random.default_rng(0))
    assert batch.labels.dtype == torch.float32
    logits = objective.model.eval()(batch.tokens, batch.lengths)
    expected = functional.binary_cross_entropy(logits.sigmoid(), batch.labels)
    assert objective.counted(batch) == 8 * 3
    torch.testing.assert_close(objective.loss(objective.model, batch) / objective.counted(batch), expected)


def test_balanced_weights_make_both_sides_of_a_label_equal(tiny_model: Path, data: Path) -> None:
    objective = built(configured(tiny_model, data, class_weights="balanced"))
    having = objective.labels.sum(0)
    without = len(objective.labels) - having
    assert np.allclose(objective.weights[0].numpy() * without, objective.weights[1].numpy() * having)
    assert np.allclose((objective.weights[0].numpy() * without * 2), len(objective.labels))
    assert objective.monitor == "validation_macro_f1"


def test_labels_of_the_model_are_explained(tagger: Path) -> None:
    found = predict(load_model(tagger), "director and writer", target="people")
    tokens = found.ids[None]
    with torch.inference_mode():
        logits = load_model(tagger).model(tokens, torch.tensor([tokens.shape[1]]))
        expected = functional.logsigmoid(logits[:, list(WORDS).index("people")])
        torch.testing.assert_close(found.score(tokens), expected)
