"""Plans: what a run will take, before it is started."""

from __future__ import annotations

import json
import operator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from tests.conftest import tiny_pretraining
from typer.testing import CliRunner

import lucidlm
from lucidlm.cli.main import app
from lucidlm.core.devices import Compute
from lucidlm.core.errors import InputError
from lucidlm.model.flops import count_parameters, flops_per_token
from lucidlm.plan import calibrate, measure, meters
from lucidlm.plan.accelerators import ACCELERATORS, accelerator
from lucidlm.plan.config import PlanConfig
from lucidlm.plan.measure import Calibration, measure_pretraining
from lucidlm.plan.plan import duration, operations
from lucidlm.plan.pretrain import plan_pretraining
from lucidlm.plan.timeline import timeline
from lucidlm.train.config import LoopConfig
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.pretrain.run import common_tokenizer, resolve

RATES = Calibration(
    start_up=3.0,
    opening=1.0,
    first_step=2.0,
    step=0.5,
    waiting=0.0,
    evaluated=0.001,
    final=0.002,
    saving=4.0,
    peak=800 * 2**20,
    growth=0.0,
    framework=400 * 2**20,
    products=1e11,
    watts=None,
    load=0.0,
    steps=10,
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LUCIDLM_CACHE", str(tmp_path / "cache" / "lucidlm"))
    return tmp_path / "cache" / "lucidlm" / "plans"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibrations take a moment, and happen here."""
    monkeypatch.setattr(measure, "STEPPING", 0.3)
    monkeypatch.setattr(measure, "EVALUATING", 0.05)
    monkeypatch.setattr(measure, "_begin", lambda: (1.5, 2**20))
    monkeypatch.setattr(calibrate, "_elsewhere", lambda found, run, load: found(run, load))


# ---------------------------------------------------------------------- time


def test_a_run_of_so_many_steps() -> None:
    loop = LoopConfig(max_steps=101, evaluations=4, checkpoint_steps=50)
    line = timeline(loop, RATES, evaluated=1000, final=5000, state_share=2.0)
    assert line.steps == 101
    assert line.seconds == pytest.approx(
        {
            "start": 4.0,
            "first step": 2.0,
            "steps": 50.0,
            "evaluations": 4 * 1.0 + 10.0,
            "checkpoints": 2 * 8.0,
            "saving and report": 4.0,
        }
    )


def test_a_run_of_so_many_minutes_has_the_steps_that_the_evaluations_leave() -> None:
    loop = LoopConfig(minutes=1, evaluations=4)
    line = timeline(loop, RATES, evaluated=1000, final=5000, state_share=2.0)
    assert line.steps == 1 + (60 - 2 - 3) / 0.5
    in_loop = line.seconds["first step"] + line.seconds["steps"] + 3 * 1.0
    assert in_loop == pytest.approx(60)
    assert timeline(loop.changed(max_steps=7), RATES, 1000, 5000, 2.0).steps == 7


def test_fewer_steps_than_evaluations_are_evaluated_once_each() -> None:
    line = timeline(LoopConfig(max_steps=2, evaluations=10), RATES, evaluated=1000, final=0, state_share=2.0)
    assert line.seconds["evaluations"] == pytest.approx(2.0)


# ---------------------------------------------------------------------- without measuring


def test_a_plan_for_an_accelerator_that_is_not_here(tiny_data: Path) -> None:
    config = tiny_pretraining(tiny_data, loop={"max_steps": 1000})
    plan = plan_pretraining(config, PlanConfig(on="H100", price_per_hour=3.0, price_per_kwh=0.5))
    shape = resolve(config, common_tokenizer([str(tiny_data)]), Compute(torch.device("cpu"), torch.float32, "")).model
    assert shape is not None
    assert sum(plan.parameters.values()) == count_parameters(shape)
    assert plan.work["FLOPs"] == 1000 * 4 * 64 * flops_per_token(shape, 64)
    assert plan.available == 80 * 2**30
    assert plan.fits
    assert 1000 < plan.largest_micro_batch < 1_000_000, "80 GB, over what 64 tokens hold"
    hours = plan.total_seconds / 3600
    assert plan.cost == pytest.approx(3.0 * hours + 0.5 * 0.7 * hours)
    assert any("35%" in sentence for sentence in plan.assumptions)
    assert json.loads(json.dumps(plan.to_dict()))["seconds"]["all"] == plan.total_seconds


def test_what_does_not_fit_says_so_and_what_would(tiny_data: Path) -> None:
    config = tiny_pretraining(tiny_data, batch_size=1_000_000)
    plan = plan_pretraining(config, PlanConfig(on="l4"))
    assert not plan.fits
    assert 0 < plan.largest_micro_batch < 1_000_000
    assert plan.recommended["micro-batch"] == plan.largest_micro_batch
    assert plan.advice[0] == f"memory is short: --micro-batch {plan.largest_micro_batch} fits"
    smaller = plan_pretraining(config.changed(micro_batch=plan.largest_micro_batch), PlanConfig(on="l4"))
    assert smaller.fits
    assert smaller.peak > 0.9 * smaller.available


@pytest.mark.parametrize(("precision", "compiling"), [("bf16", "off"), ("fp8", "on")])
def test_a_short_run_is_compiled_where_that_pays_at_once(tiny_data: Path, precision: Any, compiling: str) -> None:
    config = tiny_pretraining(tiny_data, precision=precision, compile="on", loop={"max_steps": 10})
    plan = plan_pretraining(config, PlanConfig(on="h100"))
    assert plan.recommended["compile"] == compiling
    assert any("--compile off" in advice for advice in plan.advice) == (compiling == "off")


def test_accelerators_are_known_by_name() -> None:
    assert accelerator("RTX 4090") is ACCELERATORS["rtx4090"]
    with pytest.raises(InputError, match=r"no accelerator 'v9'.*Known are h200, h100"):
        accelerator("v9")


@pytest.mark.parametrize("price", [-1, float("nan"), float("inf"), "much"])
def test_prices_are_numbers(price: Any) -> None:
    with pytest.raises(InputError, match="price_per_hour"):
        PlanConfig(price_per_hour=price)


def test_bad_shapes_and_missing_data_are_the_errors_of_the_run(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not divisible by num_heads"):
        lucidlm.plan.pretrain(tiny_data, embedding_dim=30, num_heads=4, num_layers=1, max_steps=1, calibration="off")
    with pytest.raises(InputError, match="no such directory"):
        lucidlm.plan.pretrain(tmp_path / "none", max_steps=1, calibration="off")
    with pytest.raises(InputError, match="data: is needed"):
        lucidlm.plan.pretrain(max_steps=1)


# ---------------------------------------------------------------------- measured


def test_a_run_is_begun_and_measured(tiny_data: Path, at_once: None, cpu: Compute) -> None:
    config = resolve(tiny_pretraining(tiny_data, precision="fp32"), common_tokenizer([str(tiny_data)]), cpu)
    found = measure_pretraining(config, load=0.1)
    assert (found.load, found.start_up) == (0.1, 1.5)
    assert found.steps >= 2
    assert min(found.opening, found.first_step, found.step, found.evaluated, found.saving) > 0
    assert found.evaluated == found.final, "in fp32 the last evaluation is like the others"
    assert found.peak > 2**26


def test_fine_tuning_is_begun_and_measured(tiny_model: Path, reviews_csv: Path, at_once: None) -> None:
    settings = {"model": str(tiny_model), "data": str(reviews_csv), "device": "cpu", "batch_size": 8}
    result = lucidlm.plan.finetune("sentiment", **settings, epochs=2)  # pyright: ignore[reportArgumentType]
    steps = FinetuneConfig(task="sentiment", **settings, epochs=2).planned_steps(45)
    assert result.plan.work["steps"] == steps == 90
    assert result.plan.memory["best weights so far"] == result.plan.memory["weights"]
    assert "finetune" in repr(result)
    assert result.rows()[0]["of"] == "run"


def test_the_plan_is_what_was_measured(tiny_data: Path, cache: Path, at_once: None) -> None:
    plan = lucidlm.plan.pretrain(
        tiny_data, num_layers=2, embedding_dim=32, num_heads=2, context=64, batch_size=4, max_steps=500, device="cpu"
    ).plan
    (file,) = cache.iterdir()
    measured = Calibration.model_validate_json(file.read_text())
    assert plan.seconds["steps"] == pytest.approx(499 * measured.step)
    assert plan.peak >= measured.peak
    assert plan.watts_from in ("assumed", "measured")
    assert any("very run" in sentence for sentence in plan.assumptions)


class Found(BaseModel):
    """A calibration of nothing."""

    value: int


def test_calibrations_are_kept_and_made_anew_when_asked(cache: Path, at_once: None) -> None:
    made: list[int] = []

    def count(run: int, load: float) -> Found:
        made.append(run)
        return Found(value=len(made))

    def value(shape: int, *, anew: bool = False) -> int:
        return calibrate.calibrated(Found, count, 0, {"shape": shape}, anew=anew).value

    assert [value(1), value(1), value(2), value(1, anew=True), value(1)] == [1, 1, 2, 3, 3]
    for file in cache.iterdir():
        file.write_text("{}")
    assert value(1) == 4, "what another version left is measured again"


def test_the_calibration_is_a_process_of_its_own() -> None:
    assert calibrate._elsewhere(operator.add, 1, 2.0) == 3.0  # pyright: ignore[reportArgumentType]


def test_energy_is_read_off_the_meters_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "RAPL", tmp_path)
    assert meters.joules("cpu") is None
    for package, microjoules in ((0, 5_000_000), (1, 2_000_000)):
        (tmp_path / f"intel-rapl:{package}").mkdir()
        (tmp_path / f"intel-rapl:{package}" / "energy_uj").write_text(f"{microjoules}\n")
    assert meters.joules("cpu") == 7.0


# ---------------------------------------------------------------------- as a command


def test_the_command_takes_what_the_run_takes(tiny_data: Path, tmp_path: Path) -> None:
    call = ["--data", str(tiny_data), "--out", str(tmp_path / "model"), "--depth", "2", "--max-steps", "9"]
    found = CliRunner().invoke(app, ["plan", "pretrain", *call, "--device", "cpu", "--calibration", "off", "--json"])
    assert found.exit_code == 0, found.output
    plan = json.loads(found.stdout)
    assert (plan["run"], plan["work"]["steps"], plan["fits"], plan["cost"]) == ("pretrain", 9, True, None)
    assert not (tmp_path / "model").exists()


def test_the_table_has_a_line_for_each_part(tiny_data: Path) -> None:
    call = ["--data", str(tiny_data), "--depth", "2", "--max-steps", "9", "--on", "a100", "--price-per-hour", "2"]
    printed = CliRunner().invoke(app, ["plan", "pretrain", *call]).stdout
    lines = [line.split("  ")[0] for line in printed.splitlines()]
    for name in ("parameters", "tokens", "FLOPs", "memory", "time", "energy", "cost", "bound by", "recommended"):
        assert name in lines
    assert "rests on: one process is planned" in printed


def test_amounts_are_written_for_people() -> None:
    assert [duration(x) for x in (4.24, 95, 750, 11_160, 363_000)] == ["4.2 s", "95 s", "12.5 min", "3.1 h", "4.2 days"]
    assert [operations(x) for x in (2.22e12, 3.14e16, 5e9)] == ["2.22 T", "31.4 P", "5 G"]
