"""Fine-tuning a classifier: what it is shown, what it learns, what it remembers."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import made_up_reviews, tiny_pretraining

from lucidlm.checkpoint.load import load_model
from lucidlm.core.devices import choose_compute
from lucidlm.core.errors import InputError
from lucidlm.data.corpus.prepare import PrepareConfig, prepare
from lucidlm.model.heads import SequenceClassifier
from lucidlm.predict.batching import PART_TOKENS
from lucidlm.predict.classifier import TextClassifier
from lucidlm.tasks import tasks
from lucidlm.tasks.text_classification import TextClassification
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.train.finetune.classification_objective import ClassificationObjective, TextBatch
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import build_objective, finetune, read_parts
from lucidlm.train.loop import LoopConfig
from lucidlm.train.pretrain.run import pretrain
from lucidlm.train.step import accumulate_gradients


def configured(model: Path, data: Path, **fields: Any) -> FinetuneConfig:
    loop = {"max_steps": 4, "evaluations": 2, "patience": 100, **fields.pop("loop", {})}
    base = {"task": "sentiment", "batch_size": 16, "device": "cpu", "loop": LoopConfig(**loop), **fields}
    return FinetuneConfig(model=str(model), data=str(data), **base)


def sentiment() -> TextClassification:
    task = tasks.get("sentiment")
    assert isinstance(task, TextClassification)
    return task


def built(config: FinetuneConfig) -> ClassificationObjective:
    parts = read_parts(config, sentiment())
    found = build_objective(config, sentiment(), load_model(config.model), parts, torch.device("cpu"))
    assert isinstance(found, ClassificationObjective)
    return found


def collated(objective: ClassificationObjective, rows: np.ndarray, step: int) -> TextBatch:
    return objective.collate(rows, np.random.default_rng(step))


@pytest.fixture
def objective(tiny_model: Path, reviews_csv: Path) -> ClassificationObjective:
    return built(configured(tiny_model, reviews_csv, token_dropout=0.5))


# ---------------------------------------------------------------------- batches


def test_an_epoch_covers_each_text_once(objective: ClassificationObjective) -> None:
    for epoch in (0, 1):
        batches = objective._epoch(epoch)
        assert len(batches) == objective.steps_per_epoch
        assert sorted(np.concatenate(batches)) == list(range(len(objective.train)))
        assert {len(rows) for rows in batches} <= {16, len(objective.train) % 16}


def test_every_epoch_has_another_order(objective: ClassificationObjective) -> None:
    first, second = (np.concatenate(objective._epoch(epoch)) for epoch in (0, 1))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, np.concatenate(objective._epoch(0)))


def test_a_batch_is_a_random_draw_read_in_parts_of_like_length(
    objective: ClassificationObjective, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = np.array([len(ids) for ids in objective.ids])
    spreads = [np.ptp(lengths[rows]) for rows in objective._epoch(0)]
    assert np.median(spreads) > np.ptp(lengths) / 3
    monkeypatch.setitem(PART_TOKENS, "cpu", 0)  # texts as short as these are not worth a part of their own
    objective.config = objective.config.changed(token_dropout=0.0)
    parts = next(objective.batches(0))
    assert len(parts) > 1
    assert all((part.lengths == part.lengths[0]).all() for part in parts)
    labels = sorted(label for part in parts for label in part.labels.tolist())
    assert labels == sorted(objective.labels[objective._epoch(0)[0]].tolist())


def test_parts_of_a_batch_have_the_gradient_of_the_whole(
    objective: ClassificationObjective, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective.config = objective.config.changed(token_dropout=0.0)
    compute = choose_compute("cpu", "fp32")
    model, found = objective.model.eval(), []
    for overhead in (0, 10**6):
        monkeypatch.setitem(PART_TOKENS, "cpu", overhead)
        parts = next(objective.batches(0))
        model.zero_grad()
        losses = accumulate_gradients(model, objective, parts, compute)
        gradient = torch.cat([value.grad.flatten() for value in model.parameters() if value.grad is not None])
        found.append((len(parts), losses.sum(), gradient))
    (many, loss, gradient), (one, whole_loss, whole_gradient) = found
    assert many > one == 1
    assert torch.allclose(loss, whole_loss, rtol=1e-5)
    assert torch.allclose(gradient, whole_gradient, atol=1e-6)


def test_batches_are_the_same_from_any_step_on(objective: ClassificationObjective) -> None:
    steps = objective.steps_per_epoch + 3
    straight = [batch for _, batch in zip(range(steps), objective.batches(0), strict=False)]
    for first in (1, objective.steps_per_epoch - 1, objective.steps_per_epoch, objective.steps_per_epoch + 1):
        for part, before in zip(next(objective.batches(first)), straight[first], strict=True):
            assert torch.equal(part.tokens, before.tokens)
            assert torch.equal(part.labels, before.labels)


def test_labels_stay_with_their_texts(objective: ClassificationObjective) -> None:
    for rows in objective._epoch(0)[:3]:
        assert collated(objective, rows, 0).labels.tolist() == objective.labels[rows].tolist()


def test_token_dropout_leaves_out_its_share_and_never_the_end(objective: ClassificationObjective) -> None:
    eos = objective.classifier.tokenizer.eos_id
    kept = counted = 0
    for step, rows in enumerate(objective._epoch(0)):
        batch = collated(objective, rows, step)
        for ids, length, row in zip(batch.tokens, batch.lengths, rows, strict=True):
            *seen, end = ids[:length].tolist()
            assert end == eos
            whole = iter(objective.ids[row].tolist())
            assert all(token in whole for token in seen)  # what is left stands in the order of the text
            kept, counted = kept + len(seen), counted + len(objective.ids[row])
    assert kept / counted == pytest.approx(0.5, abs=0.02)


def test_nothing_is_hidden_when_it_is_judged(objective: ClassificationObjective) -> None:
    first, second = (objective.evaluate(objective.classifier.model) for _ in range(2))
    assert first == second
    names = {"accuracy", "macro_f1", "mcc", "calibration_error", "loss"}
    assert set(first) == {f"validation_{name}" for name in names}


def test_a_batch_that_breaks_can_be_found(objective: ClassificationObjective) -> None:
    said = objective.describe(objective.steps_per_epoch + 1)
    row = objective._epoch(1)[1][0]
    assert f"epoch 1, examples {objective.train[row].where}" in said
    assert "reviews.csv:" in said


# ---------------------------------------------------------------------- rare labels


def test_a_label_seen_once_is_learned(tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "rare.jsonl"
    rows = [*made_up_reviews(60), {"text": "refund number 11", "label": "refund"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    finetune(configured(tiny_model, path, task="text-classification", loop={"max_steps": 1}), tmp_path / "judge")
    record = load_model(tmp_path / "judge").record
    assert record["labels"] == ["negative", "positive", "refund"]
    assert record["provenance"]["bounds"].keys() == {"negative", "positive", "refund"}


# ---------------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, reviews_csv: Path) -> Path:
    directory = tmp_path_factory.mktemp("finetuned") / "judge"
    config = configured(tiny_model, reviews_csv, epochs=12, loop={"max_steps": None, "evaluations": 6})
    finetune(config, directory)
    return directory


def test_it_learns_what_the_opinion_words_mean(judge: Path, tmp_path: Path) -> None:
    classifier = TextClassifier(judge, device="cpu")
    fresh = made_up_reviews(100, seed=1)
    probabilities = classifier.predict_proba([row["text"] for row in fresh])
    assert probabilities.sum(1) == pytest.approx(np.ones(100))
    chosen = [classifier.labels[index] for index in probabilities.argmax(1)]
    assert np.mean([a == row["label"] for a, row in zip(chosen, fresh, strict=True)]) >= 0.95


def test_the_model_knows_its_labels_and_where_it_comes_from(judge: Path, reviews_csv: Path) -> None:
    loaded = load_model(judge)
    assert isinstance(loaded.model, SequenceClassifier)
    assert loaded.model.labels == loaded.record["labels"] == ["negative", "positive"]
    assert json.loads((judge / "config.json").read_text())["id2label"] == {"0": "negative", "1": "positive"}
    provenance = loaded.record["provenance"]
    assert (provenance["task"], provenance["data"], provenance["seed"]) == ("sentiment", str(reviews_csv), 0)
    assert provenance["metrics"]["validation_accuracy"] > 0.9
    assert FinetuneConfig(**provenance["config"]).max_length == 64


def test_epochs_become_steps(judge: Path, tiny_model: Path, reviews_csv: Path) -> None:
    training = len(read_parts(configured(tiny_model, reviews_csv), sentiment())["train"])
    assert steps_of(judge) == 12 * -(-training // 16)


def steps_of(directory: Path) -> int:
    return load_model(directory).record["provenance"]["metrics"]["steps"]


def test_max_steps_never_lengthens_a_run(
    tmp_path: Path, tiny_model: Path, reviews_csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured(tiny_model, reviews_csv, epochs=0.2, loop={"max_steps": 60})
    finetune(config, tmp_path / "judge")
    training = len(read_parts(config, sentiment())["train"])
    assert steps_of(tmp_path / "judge") == math.ceil(0.2 * -(-training // 16)) < 60
    assert "fewer than the 60 allowed" in capsys.readouterr().err
    # The run may be replayed, and be resumed with the same flags.
    assert FinetuneConfig.load(tmp_path / "judge" / "config.yaml").loop.max_steps == 60


def test_numbers_become_names_whatever_their_order(tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "numbers.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows((row["text"], int(row["label"] == "positive")) for row in reversed(made_up_reviews(60)))
    finetune(configured(tiny_model, path, loop={"max_steps": 1}), tmp_path / "judge")
    assert load_model(tmp_path / "judge").record["labels"] == ["negative", "positive"]


def test_with_nothing_held_out_the_last_weights_are_kept(tmp_path: Path, tiny_model: Path, reviews_csv: Path) -> None:
    weights = {}
    for name, loop in (("every", {"evaluations": 6}), ("once", {"evaluations": 1})):
        config = configured(tiny_model, reviews_csv, validation=0, test=0, loop={"max_steps": 6, **loop})
        outcome = finetune(config, tmp_path / name)
        assert outcome.evaluation == {}
        weights[name] = (tmp_path / name / "model.safetensors").read_bytes()
    assert weights["every"] == weights["once"]
    json.loads((tmp_path / "every" / "lucidlm.json").read_text(), parse_constant=pytest.fail)  # no NaN


def test_real_sentences(tmp_path: Path, shared_data: Path) -> None:
    """Two thousand sentences of the Stanford treebank, a model of two narrow layers, hardly pretrained."""
    path = tmp_path / "sst2.jsonl"
    rows = (shared_data / "sentiment" / "sst2" / "train.jsonl").read_text().splitlines(keepends=True)[:2500]
    path.write_text("".join(rows))
    prepare(PrepareConfig(sources=[str(path)], vocab_size=2000), tmp_path / "data")
    pretrain(tiny_pretraining(tmp_path / "data", loop={"max_steps": 2}), tmp_path / "model")
    # fp32: where the CPU has bf16 units it would be judged in bf16 while it is trained, and in fp32 at the end.
    settings = {
        "validation": 0.2,
        "epochs": 4,
        "batch_size": 32,
        "precision": "fp32",
        "loop": {"max_steps": None},
        "wide": False,
    }
    outcome = finetune(configured(tmp_path / "model", path, **settings), tmp_path / "judge")
    assert outcome.state.best is not None
    assert 0 <= outcome.state.best - outcome.evaluation["validation_accuracy"] < 0.03  # the standard error is 0.02
    assert outcome.state.best >= 0.6


# ---------------------------------------------------------------------- what is refused


def refused(tmp_path: Path, config: FinetuneConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        finetune(config, tmp_path / "judge")
    assert not (tmp_path / "judge").exists()


def test_texts_longer_than_the_models_context(tmp_path: Path, tiny_model: Path, reviews_csv: Path) -> None:
    refused(tmp_path, configured(tiny_model, reviews_csv, max_length=65), r"65 tokens are longer.*context of 64")


def test_a_classifier_is_no_pretrained_model(tmp_path: Path, judge: Path, reviews_csv: Path) -> None:
    refused(tmp_path, configured(judge, reviews_csv), "is not a pretrained language model")


def test_an_unknown_task(tiny_model: Path, reviews_csv: Path) -> None:
    with pytest.raises(InputError, match=r"there is no task called 'sentimant'\. Choose one of: .*sentiment"):
        configured(tiny_model, reviews_csv, task="sentimant")


def test_one_label_only(tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "happy.jsonl"
    path.write_text("".join(json.dumps({**row, "label": "positive"}) + "\n" for row in made_up_reviews(20)))
    refused(tmp_path, configured(tiny_model, path), "have one label, 'positive'")


def test_a_missing_label_is_named_by_line(tmp_path: Path, tiny_model: Path) -> None:
    rows = made_up_reviews(20)
    del rows[6]["label"]
    path = tmp_path / "reviews.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused(tmp_path, configured(tiny_model, path), r"reviews\.jsonl:7: .*label.*--on-error skip")
    parts = read_parts(configured(tiny_model, path, on_error="skip"), sentiment())
    assert sum(map(len, parts.values())) == 19


def test_the_task_is_in_the_registry() -> None:
    assert "sentiment" in list(tasks)


def test_long_texts_are_read_whole(tiny_model: Path, tiny_data: Path) -> None:
    tokenizer = Tokenizer.load(tiny_data).with_end()
    shape = load_model(tiny_model).model.config
    classifier = TextClassifier.from_model(SequenceClassifier(shape, ["a", "b"], "mean"), tokenizer, max_length=9)
    text = "director calls film wonderful and writer finds plot moving though"
    (ids,) = classifier.encode([text])
    assert ids.tolist() == tokenizer.encode(text)
    windows = np.array_split(ids, -(-len(ids) // 8))
    assert len(windows) > 1
    logits, weights = [], []
    for window in windows:
        tokens = torch.tensor([[*window.tolist(), tokenizer.eos_id]])
        with torch.inference_mode():
            logits.append(classifier.model.eval()(tokens, torch.tensor([tokens.shape[1]]))[0].double())
        weights.append(tokens.shape[1])
    expected = torch.stack(logits).T @ torch.tensor(weights, dtype=torch.float64) / sum(weights)
    torch.testing.assert_close(torch.from_numpy(classifier.predict_proba([text])[0]), expected.softmax(-1))


def test_training_takes_stretches_of_long_texts(tiny_model: Path, reviews_csv: Path) -> None:
    config = configured(tiny_model, reviews_csv, max_length=9, token_dropout=0.0)
    objective = built(config)
    starts = set()
    for step in range(20):
        batch = collated(objective, np.array([0]), step)
        whole, seen = objective.ids[0].tolist(), batch.tokens[0, :-1].tolist()
        assert batch.lengths.tolist() == [9]
        found = [start for start in range(len(whole) - 7) if whole[start : start + 8] == seen]
        assert found
        starts.add(found[0])
    assert len(starts) > 3


def test_a_causal_model_may_learn_to_see_both_ways(tiny_model: Path, reviews_csv: Path) -> None:
    objective = built(configured(tiny_model, reviews_csv, attention="bidirectional"))
    assert not objective.classifier.model.config.causal
    objective.classifier.model.eval()
    tokens, lengths = torch.tensor([[7, 8, 9, 10]]), torch.tensor([4])
    hidden = objective.classifier.model.model(tokens)
    assert not torch.equal(hidden[0, 0], objective.classifier.model.model(tokens[:, :2])[0, 0])
    assert torch.isfinite(objective.classifier.model(tokens, lengths)).all()


def test_rare_labels_weigh_more_if_asked(tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "unequal.jsonl"
    rows = made_up_reviews(80)
    rare = [row for row in rows if row["label"] == "positive"][:5]
    path.write_text("".join(json.dumps(r) + "\n" for r in [*rare, *(r for r in rows if r["label"] == "negative")]))
    objective = built(configured(tiny_model, path, class_weights="balanced", validation=0, test=0))
    counts = np.bincount(objective.labels)
    assert (objective.weights.numpy() * counts).tolist() == pytest.approx([sum(counts) / 2] * 2)


def test_validation_examples_of_their_own_are_never_trained_on(tmp_path: Path, tiny_model: Path) -> None:
    rows = made_up_reviews(60)
    for name, part in (("train.jsonl", rows), ("validation.jsonl", rows[:20])):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in part))
    config = configured(
        tiny_model, tmp_path / "train.jsonl", validation_data=str(tmp_path / "validation.jsonl"), test=0
    )
    parts = read_parts(config, sentiment())
    assert (len(parts["train"]), len(parts["validation"]), len(parts["test"])) == (40, 20, 0)
    assert not {e.text for e in parts["train"]} & {e.text for e in parts["validation"]}
