"""The scaling law: the curve that made the losses is found again, and held-out runs are where it says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from tests.conftest import tiny_pretraining
from typer.testing import CliRunner

import lucidlm
from lucidlm.checkpoint.load import load_model
from lucidlm.cli.main import app
from lucidlm.core.errors import InputError
from lucidlm.model.config import ModelConfig
from lucidlm.model.flops import flops_per_token
from lucidlm.plan.config import ScalingConfig
from lucidlm.plan.scaling import ScalingLaw
from lucidlm.plan.scaling_runs import ScalingRun, fit_scaling
from lucidlm.train.pretrain.run import pretrain

BUDGETS = [1e12, 3e12, 1e13, 3e13, 1e14]


def loss(budget: float) -> float:
    return 1.7 + 40 * budget**-0.1


def test_the_curve_that_made_the_losses_is_found() -> None:
    law = ScalingLaw(BUDGETS, [loss(budget) for budget in BUDGETS])
    assert law.power == pytest.approx(0.1, abs=0.006)
    assert law.floor == pytest.approx(1.7, abs=0.1)
    found = law.predict(1e16)
    assert found.loss == pytest.approx(loss(1e16), rel=0.01)
    assert "loss = " in repr(law)


def test_the_interval_holds_larger_runs_mostly() -> None:
    held, widths = 0, []
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0, 0.01, len(BUDGETS))
        found = ScalingLaw(BUDGETS, [loss(x) + e for x, e in zip(BUDGETS, noise, strict=True)]).predict(5e14)
        held += found.low <= loss(5e14) <= found.high
        widths.append(found.high - found.low)
    assert held >= 14
    assert max(widths) < 0.3, "and says something"


def test_further_away_is_less_certain() -> None:
    noise = np.random.default_rng(1).normal(0, 0.01, len(BUDGETS))
    law = ScalingLaw(BUDGETS, [loss(x) + e for x, e in zip(BUDGETS, noise, strict=True)])
    near, far = law.predict(2e14), law.predict(1e17)
    assert far.high - far.low > near.high - near.low
    assert law.predict(2e14) == near, "the same seed gives the same interval"


@pytest.mark.parametrize(
    ("budgets", "losses", "message"),
    [
        ([1, 2, 3], [3, 2, 1], "too few"),
        ([1, 1, 1, 2, 2], [3, 3, 3, 2, 2], "too few"),
        ([1, 2, 3, 4], [3, 2, 1], "do not belong together"),
        ([1, 2, 3, 0], [4, 3, 2, 1], "positive"),
        ([1, 2, 3, 4], [4, 3, float("nan"), 1], "positive"),
    ],
)
def test_what_is_no_series_of_runs_is_refused(budgets: list[float], losses: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ScalingLaw(budgets, losses)


def test_runs_are_read_by_their_directories(tiny_model: Path, tmp_path: Path) -> None:
    run = ScalingRun.read(tiny_model)
    assert run.tokens == 12 * 4 * 64
    assert run.flops == run.tokens * flops_per_token(load_model(tiny_model).model.config, 64)
    assert 0 < run.loss < 10
    with pytest.raises(InputError, match="too few"):
        lucidlm.plan.scaling_law([tiny_model] * 4)
    with pytest.raises(InputError, match="too few"):
        lucidlm.plan.scaling_law([])
    with pytest.raises(InputError):
        lucidlm.plan.scaling_law([tmp_path])


def test_a_budget_is_positive() -> None:
    law = ScalingLaw(BUDGETS, [loss(budget) for budget in BUDGETS])
    with pytest.raises(InputError, match="no budget"):
        law.predict(-1)


# ---------------------------------------------------------------------- runs


def made_up_run(
    directory: Path,
    tokens: float,
    loss: float,
    *,
    width: int = 32,
    tokenizer: str = "a",
    data: str = "d",
    **config: Any,
) -> Path:
    """Write what is read of a pretraining run that read so many tokens of so many parameters and reached this loss."""
    shape = ModelConfig(
        vocab_size=64, embedding_dim=width, num_layers=2, num_heads=2, num_kv_heads=2, ff_dim=64, context_length=64
    )
    record = {
        "kind": "language",
        "model": shape.model_dump(mode="json"),
        "files": {"tokenizer.json": [1, tokenizer]},
        "provenance": {"metrics": {"tokens": round(tokens), "validation_loss": loss}, "data": {"data": data}},
    }
    directory.mkdir()
    settings = {"objective": "causal", "context_length": 64, "mask_rate": 0.3, **config}
    (directory / "config.yaml").write_text(yaml.safe_dump(settings))
    (directory / "lucidlm.json").write_text(json.dumps(record))
    return directory


def made_up_runs(root: Path, budgets: Sequence[float], **options: Any) -> list[Path]:
    return [made_up_run(root / f"run-{n}", x, loss(x), **options) for n, x in enumerate(budgets)]


def test_the_largest_run_is_predicted_by_the_others(tmp_path: Path) -> None:
    runs = made_up_runs(tmp_path, BUDGETS)
    found = fit_scaling(runs[::-1], ScalingConfig(tokens=1e15, hold_out=True))
    assert found.budget == "tokens"
    assert [found.of(run) for run in found.runs] == BUDGETS
    assert found.law.power == pytest.approx(0.1, abs=0.006)
    assert found.check is not None
    assert found.check.loss == pytest.approx(loss(BUDGETS[-1]), rel=0.002)
    assert [run.directory for run in found.held_out] == [runs[-1]]
    assert found.predicted is not None
    assert found.predicted.loss == pytest.approx(loss(1e15), rel=0.005)
    assert found.predicted == found.law.predict(1e15)
    off = made_up_run(tmp_path / "off", 1e15, 9.0)
    rows = dict(fit_scaling([*runs, off], ScalingConfig(hold_out=True)).rows())
    assert "reached 9.0000: above the interval" in rows[f"  {off}"], "the held-out run's line comes last"


def test_a_budget_is_what_was_asked_about(tmp_path: Path) -> None:
    runs = [made_up_run(tmp_path / str(n), 1e6 * 2**n, 4 - 0.3 * n, width=32 + 16 * n) for n in range(5)]
    both = fit_scaling(runs, ScalingConfig(tokens=1e9, parameters=1e6))
    assert (both.budget, both.target) == ("6 x parameters x tokens", 6e15)
    assert both.of(both.runs[0]) == 6 * both.runs[0].parameters * both.runs[0].tokens
    assert any("times the largest run's" in sentence for sentence in both.advice)
    assert fit_scaling(runs, ScalingConfig(flops=1e14)).budget == "FLOPs"
    assert fit_scaling(runs, ScalingConfig()).predicted is None
    with pytest.raises(InputError, match=r"--tokens: the runs differ in parameters, too: .* Pass --parameters as well"):
        fit_scaling(runs, ScalingConfig(tokens=1e9))
    with pytest.raises(InputError, match=r"--parameters: the runs differ in tokens, too"):
        fit_scaling(runs, ScalingConfig(parameters=1e9))
    with pytest.raises(InputError, match="a budget is FLOPs, or tokens and parameters"):
        fit_scaling(runs, ScalingConfig(flops=1e9, tokens=1e9))
    with pytest.raises(InputError, match="tokens"):
        ScalingConfig(tokens=-1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer": "b"}, "with another tokenizer than .*run-0: their losses cannot be compared"),
        ({"data": "e"}, "with other data than .*run-0: their losses cannot be compared"),
        ({"context_length": 32}, "has samples of 32 tokens, and .*run-0 samples of 64 tokens"),
        ({"objective": "hybrid"}, "has the objective hybrid, and .*run-0 the objective causal"),
    ],
)
def test_losses_that_cannot_be_compared_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    runs = made_up_runs(tmp_path, BUDGETS)
    other = made_up_run(tmp_path / "other", 1e15, 2.0, **change)
    with pytest.raises(InputError, match=f"other: .*{message}"):
        fit_scaling([*runs, other], ScalingConfig())


def test_too_few_runs_are_refused(tmp_path: Path) -> None:
    runs = made_up_runs(tmp_path, BUDGETS)
    with pytest.raises(InputError, match=r"RUN: 3 runs are too few for a curve of three numbers. Make 4 at least"):
        fit_scaling(runs[:3], ScalingConfig())
    with pytest.raises(InputError, match="--hold-out: without the largest, 3 budgets are left"):
        fit_scaling(runs[:4], ScalingConfig(hold_out=True))
    with pytest.raises(InputError, match="run-1: is given twice"):
        fit_scaling([*runs, runs[1]], ScalingConfig())
    alike = [made_up_run(tmp_path / f"alike-{n}", 1e6, 3.0) for n in range(4)]
    with pytest.raises(InputError, match=r"all 4 runs have the same FLOPs.*too few budgets"):
        fit_scaling(alike, ScalingConfig())
    (runs[0] / "lucidlm.json").unlink()
    with pytest.raises(InputError, match="run-0: is not of a pretraining run that has ended"):
        fit_scaling(runs, ScalingConfig())


def test_the_command_prints_and_draws(tmp_path: Path) -> None:
    runs = [str(run) for run in made_up_runs(tmp_path, BUDGETS)]
    page, picture = tmp_path / "scaling.html", tmp_path / "scaling.svg"
    call = ["plan", "scaling", *runs, "--tokens", "1e15", "--hold-out"]
    printed = CliRunner().invoke(app, [*call, "--out", str(page)])
    assert printed.exit_code == 0, printed.output
    for line in ("law ", "runs ", "largest, held out", "predicted ", "rests on: intervals: 90% of 500 curves"):
        assert line in printed.stdout
    assert "Held-out loss by tokens" in page.read_text("utf-8")
    found = json.loads(CliRunner().invoke(app, [*call, "--json", "--out", str(picture)]).stdout)
    assert (found["target"], found["budget"], len(found["runs"])) == (1e15, "tokens", 5)
    assert found["predicted"]["low"] <= found["predicted"]["loss"] <= found["predicted"]["high"]
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    wrong = CliRunner().invoke(app, [*call, "--out", str(tmp_path / "scaling.png")])
    assert isinstance(wrong.exception, InputError)
    assert "Name a file .html or .svg" in str(wrong.exception)


def test_tiny_runs_of_growing_length(tiny_data: Path, tmp_path: Path) -> None:
    runs = []
    for steps in (4, 8, 16, 32, 64):
        runs.append(tmp_path / f"steps-{steps}")
        pretrain(tiny_pretraining(tiny_data, loop={"max_steps": steps, "evaluations": 1}), runs[-1])
    result = lucidlm.plan.scaling_law(runs, tokens=1e6, hold_out=True, out=tmp_path / "scaling.html")
    reached = [run.loss for run in result.scaling.runs]
    assert reached == sorted(reached, reverse=True)
    assert result.predicted is not None
    assert 0 < result.predicted.loss < reached[-1]
    assert result.scaling.check is not None
    assert result.scaling.check.low <= result.scaling.check.loss <= result.scaling.check.high
    assert result.rows()[0]["of"] == "law"
    assert "the interval" in {row["of"]: row["value"] for row in result.rows()}[f"  {runs[-1]}"]
    assert "nats predicted" in repr(result)
    assert (tmp_path / "scaling.html").exists()
