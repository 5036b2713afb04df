"""What fine-tuning does where nothing is asked for: by the model's origin and size, and by the data's labels."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import made_up_reviews

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.save import save_model
from lucidlm.core.errors import InputError
from lucidlm.core.flat import resolve
from lucidlm.model.config import ModelConfig
from lucidlm.tasks import tasks
from lucidlm.train.finetune.config import FinetuneConfig, adamw_rate
from lucidlm.train.finetune.objective import TaskObjective
from lucidlm.train.finetune.run import build_objective, finetune, read_parts


@pytest.fixture(scope="module")
def made_elsewhere(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The tiny model as `import` would leave it: nothing says how its weights came about."""
    directory = tmp_path_factory.mktemp("imported") / "model"
    loaded = load_model(tiny_model)
    save_model(loaded.model, directory, loaded.tokenizer, provenance={"imported_from": "somewhere"})
    return directory


def configured(model: Path, data: object = "", **fields: Any) -> FinetuneConfig:
    return FinetuneConfig(task="sentiment", model=str(model), data=str(data), device="cpu", **fields)


def chosen(model: Path, **fields: Any) -> FinetuneConfig:
    return configured(model, **fields).for_model(load_model(model))


def test_weights_that_muon_made_are_moved_by_muon(tiny_model: Path) -> None:
    config = chosen(tiny_model)
    optimizer = config.loop.optimizer
    assert (optimizer.name, optimizer.learning_rate) == ("muon", 1e-3)
    assert optimizer.muon_learning_rate == pytest.approx(1e-3 * 10 / 3)
    assert (config.dropout, config.token_dropout, config.pooling) == (0.1, 0.2, "mean")


def test_models_made_elsewhere_are_tuned_as_the_field_tunes_them(made_elsewhere: Path) -> None:
    config = chosen(made_elsewhere)
    assert (config.loop.optimizer.name, config.loop.optimizer.learning_rate) == ("adamw", 2e-4)
    assert (config.dropout, config.token_dropout, config.pooling) == (0.0, 0.0, "last")
    assert chosen(made_elsewhere, attention="bidirectional").pooling == "mean"
    schedule = config.loop.schedule
    assert (schedule.warmup, schedule.decay, schedule.floor) == (0.1, 0.9, 0.0)


def test_what_is_asked_for_holds_wherever_the_model_is_from(tiny_model: Path, made_elsewhere: Path) -> None:
    for model in (tiny_model, made_elsewhere):
        optimizer = chosen(model, loop={"optimizer": {"name": "adamw", "learning_rate": 7e-5}}).loop.optimizer
        assert (optimizer.name, optimizer.learning_rate) == ("adamw", 7e-5)
    optimizer = chosen(tiny_model, loop={"optimizer": {"learning_rate": 3e-4}}).loop.optimizer
    assert (optimizer.name, optimizer.learning_rate) == ("muon", 3e-4)
    assert optimizer.muon_learning_rate == pytest.approx(1e-3)


def test_a_flag_changes_nothing_but_what_it_names() -> None:
    flags = {"task": "sentiment", "model": "m", "data": "d", "loop.optimizer.learning_rate": 5e-5}
    loop, usual = resolve(FinetuneConfig, None, flags).loop, configured(Path("m"), "d").loop
    assert loop.optimizer == usual.optimizer.changed(learning_rate=5e-5)
    assert (loop.schedule, loop.patience, loop.evaluations) == (usual.schedule, usual.patience, usual.evaluations)


@pytest.mark.parametrize(
    ("millions", "rate"), [(4, 2e-4), (25, 1e-4), (100, 5e-5), (400, 2.5e-5), (3_000, 1e-5), (70_000, 1e-5)]
)
def test_the_rate_falls_with_the_root_of_the_size(monkeypatch: pytest.MonkeyPatch, millions: int, rate: float) -> None:
    monkeypatch.setattr("lucidlm.train.finetune.config.count_parameters", lambda _: millions * 10**6)
    size = {"vocab_size": 8, "embedding_dim": 8, "num_heads": 1, "ff_dim": 8, "num_layers": 1}
    shape = ModelConfig.masked(**size)
    assert adamw_rate(shape, "full") == pytest.approx(rate, rel=0.15)
    assert adamw_rate(shape, "lora") == adamw_rate(shape, "head") == pytest.approx(min(1e-3, 20 * rate), rel=0.15)


@pytest.mark.parametrize(("millions", "rate"), [(25, 2e-4), (100, 1.75e-4), (400, 8.75e-5), (70_000, 1e-5)])
def test_causal_models_take_a_higher_rate(monkeypatch: pytest.MonkeyPatch, millions: int, rate: float) -> None:
    monkeypatch.setattr("lucidlm.train.finetune.config.count_parameters", lambda _: millions * 10**6)
    shape = ModelConfig(vocab_size=8, embedding_dim=8, num_heads=1, ff_dim=8, num_layers=1)
    assert adamw_rate(shape, "full") == pytest.approx(rate, rel=0.15)


@pytest.mark.parametrize(
    ("steps_per_epoch", "settings", "steps"),
    [
        (4, {}, 40),  # ten epochs at most
        (20, {}, 100),
        (30, {}, 100),
        (1000, {}, 2000),  # two at least
        (100, {"epochs": 1.5}, 150),
        (9, {"epochs": 1, "loop": {"max_steps": 60}}, 9),
        (100, {"loop": {"max_steps": 60}}, 60),
    ],
)
def test_few_examples_are_read_more_often(steps_per_epoch: int, settings: dict[str, Any], steps: int) -> None:
    assert configured(Path("m"), "d", **settings).planned_steps(steps_per_epoch) == steps


def test_a_model_tuned_here_stays_one_made_elsewhere(
    tmp_path: Path, made_elsewhere: Path, tiny_model: Path, reviews_csv: Path
) -> None:
    for model, here in ((made_elsewhere, False), (tiny_model, True)):
        out = tmp_path / str(here)
        finetune(_generation(model, reviews_csv), out)
        assert load_model(out).record["provenance"]["pretrained_here"] is here
        assert chosen(out).loop.optimizer.name == ("muon" if here else "adamw")


def _generation(model: Path, data: Path) -> FinetuneConfig:
    loop = {"max_steps": 1, "evaluations": 1}
    return FinetuneConfig(task="generation", model=str(model), data=str(data), device="cpu", loop=loop)


def test_a_causal_models_new_head_gives_all_labels_the_same_chance(made_elsewhere: Path, reviews_csv: Path) -> None:
    objective = objective_of(configured(made_elsewhere, reviews_csv).for_model(load_model(made_elsewhere)))
    assert not objective.model.score.weight.any()
    answers = objective.predictor.predict(objective.validation)
    assert {answer.probabilities for answer in answers} == {(0.5, 0.5)}


# ---------------------------------------------------------------------- which weights are best


@pytest.fixture(scope="module")
def unbalanced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reviews, nine of ten of them positive."""
    path = tmp_path_factory.mktemp("unbalanced") / "reviews.jsonl"
    reviews = made_up_reviews(600)
    rows = [row for number, row in enumerate(reviews) if row["label"] == "positive" or number % 18 == 0]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def objective_of(config: FinetuneConfig) -> TaskObjective[Any, Any]:
    task = tasks.get(config.task)
    return build_objective(config, task, load_model(config.model), read_parts(config, task), torch.device("cpu"))


def test_accuracy_decides_where_labels_are_balanced(tiny_model: Path, reviews_csv: Path) -> None:
    objective = objective_of(configured(tiny_model, reviews_csv))
    assert objective.monitor == "validation_accuracy"
    assert not any("--monitor" in line for line in objective.report())


def test_macro_f1_decides_where_they_are_not(tiny_model: Path, unbalanced: Path, reviews_csv: Path) -> None:
    objective = objective_of(configured(tiny_model, unbalanced))
    assert (objective.monitor, objective.higher_is_better) == ("validation_macro_f1", True)
    assert any("best weights are chosen by validation macro f1 (--monitor)" in line for line in objective.report())
    weighted = objective_of(configured(tiny_model, reviews_csv, class_weights="balanced"))
    assert weighted.monitor == "validation_macro_f1"


@pytest.mark.parametrize(
    ("monitor", "higher"), [("accuracy", True), ("mcc", True), ("calibration_error", False), ("loss", False)]
)
def test_monitor_sets_what_decides(tiny_model: Path, unbalanced: Path, monitor: str, higher: bool) -> None:
    objective = objective_of(configured(tiny_model, unbalanced, monitor=monitor))
    assert (objective.monitor, objective.higher_is_better) == (f"validation_{monitor}", higher)


def test_a_figure_that_is_not_measured_is_refused(tiny_model: Path, reviews_csv: Path) -> None:
    with pytest.raises(InputError, match=r"monitor: sentiment measures no 'bleu'.* accuracy, macro_f1, .*, loss"):
        objective_of(configured(tiny_model, reviews_csv, monitor="bleu"))


def test_figures_on_the_way_and_the_final_ones_are_of_one_precision(
    tmp_path: Path, tiny_model: Path, reviews_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bf16 runs too: the best weights' figures come out again to the last digit when they are measured at the end."""
    monkeypatch.setattr("lucidlm.core.devices.has_bf16_units", lambda: True)
    loop = {"max_steps": 3, "evaluations": 3}
    finetune(configured(tiny_model, reviews_csv, precision="bf16", wide=False, loop=loop), tmp_path / "judge")
    lines = [json.loads(line) for line in (tmp_path / "judge" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["validation_loss"] for line in lines if "validation_loss" in line]
    final = load_model(tmp_path / "judge").record["provenance"]["metrics"]["validation_loss"]
    assert any(math.isclose(final, loss, rel_tol=1e-12) for loss in losses)
