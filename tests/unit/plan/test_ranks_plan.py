"""Plans of several ranks: what each holds and sends, how long a step takes, how many are needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import tiny_pretraining
from typer.testing import CliRunner

import lucidlm
from lucidlm.cli.main import app
from lucidlm.core.errors import InputError
from lucidlm.plan.config import PlanConfig
from lucidlm.plan.plan import Plan
from lucidlm.plan.pretrain import plan_pretraining
from lucidlm.plan.ranks import WHOLE

LARGE = {"shape": {"embedding_dim": 2048, "num_heads": 16, "ff_dim": 8192, "num_layers": 24, "num_kv_heads": 16}}
"""About 1.6 billion parameters: at 16 bytes each they do not fit 24 GiB."""


def planned(data: Path, ranks: int, parallel: str = "auto", batch_size: int = 16, **how: object) -> Plan:
    loop = {"max_steps": 100, "parallel": parallel, "optimizer": {"name": "adamw"}}
    config = tiny_pretraining(data, batch_size=batch_size, loop=loop)
    return plan_pretraining(config, PlanConfig(on="h100", ranks=ranks, **how))  # pyright: ignore[reportArgumentType]


def test_a_model_whole_on_each_rank(tiny_data: Path) -> None:
    one, four = planned(tiny_data, 1), planned(tiny_data, 4)
    assert one.share is None
    assert four.share is not None
    assert (four.share.parallel, four.share.rows, four.share.count) == ("ddp", 4, 4)
    for part in ("weights", "gradients", "optimizer state"):
        assert four.memory[part] == one.memory[part]
    assert four.memory["activations"] < 0.5 * one.memory["activations"]
    assert four.share.sent == pytest.approx(2 * 3 / 4 * one.memory["gradients"])
    assert four.share.exchanging == pytest.approx(four.share.sent / 450e9)
    assert four.share.computing == pytest.approx(one.seconds["steps"] / 99 / 4)
    assert four.seconds["steps"] == pytest.approx(99 * four.share.step)
    assert four.watts == 4 * one.watts
    assert four.available == one.available
    assert four.recommended["ranks"] == 1
    assert any("the fewest ranks that have room are 1; a step takes" in sentence for sentence in four.advice)
    assert any("never checked on several GPUs" in sentence for sentence in four.assumptions)


def test_a_model_in_shards(tiny_data: Path) -> None:
    one, four = planned(tiny_data, 1), planned(tiny_data, 4, "fsdp")
    assert four.share is not None
    assert four.share.parallel == "fsdp"
    for part in ("weights", "gradients", "optimizer state"):
        assert four.memory[part] == pytest.approx(one.memory[part] / 4, abs=1)
    weights, blocks = one.memory["weights"], 4 * one.parameters["blocks"]
    assert four.memory[WHOLE] + four.memory["activations"] >= weights
    assert four.share.sent == pytest.approx(3 / 4 * (2 * weights + blocks))


def test_a_slower_link_and_smaller_parts_take_longer(tiny_data: Path) -> None:
    fast, slow = planned(tiny_data, 4, "fsdp"), planned(tiny_data, 4, "fsdp", link_gb_per_second=0.001)
    assert fast.share is not None
    assert slow.share is not None
    assert slow.share.exchanging == pytest.approx(450_000 * fast.share.exchanging)
    assert slow.bound.startswith("what ranks tell each other")
    loop = {"max_steps": 100, "parallel": "fsdp"}
    config = tiny_pretraining(tiny_data, batch_size=16, micro_batch=2, loop=loop)
    found = plan_pretraining(config, PlanConfig(on="h100", ranks=4)).share
    assert found is not None
    assert found.rows == 2
    assert found.sent == pytest.approx(2 * fast.share.sent), "two micro-batches, each gathered and reduced"


def test_the_fewest_ranks_that_fit_are_recommended(tiny_data: Path) -> None:
    config = tiny_pretraining(tiny_data, batch_size=16, **LARGE, loop={"max_steps": 9, "optimizer": {"name": "adamw"}})
    one = plan_pretraining(config, PlanConfig(on="l4"))
    assert not one.fits
    fewest = one.recommended["ranks"]
    assert fewest in (2, 4)
    assert f"; {fewest} ranks have room" in one.advice[0]
    several = plan_pretraining(config.changed(micro_batch=1), PlanConfig(on="l4", ranks=int(fewest)))
    assert several.fits
    assert several.share is not None
    assert several.share.parallel == "fsdp", "which auto chooses for a model that takes half of the memory"


def test_ranks_of_this_machine_share_it(tiny_data: Path) -> None:
    config = tiny_pretraining(tiny_data, batch_size=16)
    one, two = (plan_pretraining(config, PlanConfig(calibration="off", ranks=ranks)) for ranks in (1, 2))
    assert two.share is not None
    assert two.available == pytest.approx(one.available / 2, rel=0.3)
    assert two.watts == one.watts
    assert any("share its cores" in sentence for sentence in two.assumptions)
    assert two.share.computing == pytest.approx(one.seconds["steps"] / 11, rel=0.9)


def test_what_ranks_cannot_share_is_refused_as_in_the_run(tiny_data: Path, tiny_model: Path, reviews_csv: Path) -> None:
    with pytest.raises(InputError, match="a batch of 16 cannot be shared evenly by 3 ranks"):
        planned(tiny_data, 3)
    with pytest.raises(InputError, match="ranks"):
        PlanConfig(ranks=0)
    found = lucidlm.plan.finetune("sentiment", model=tiny_model, data=reviews_csv, batch_size=8, on="a100", ranks=2)
    assert found.plan.share is not None
    assert found.plan.share.count == 2
    with pytest.raises(InputError, match="cannot be shared evenly"):
        lucidlm.plan.finetune("sentiment", model=tiny_model, data=reviews_csv, batch_size=9, on="a100", ranks=2)


def test_the_command_tells_of_ranks(tiny_data: Path) -> None:
    call = ["plan", "pretrain", "--data", str(tiny_data), "--depth", "2", "--max-steps", "9", "--on", "a100"]
    call += ["--ranks", "2", "--parallel", "fsdp", "--link-gb-per-second", "25"]
    printed = CliRunner().invoke(app, call)
    assert printed.exit_code == 0, printed.output
    for line in (
        "2 ranks on one NVIDIA A100 SXM (not measured) each",
        "memory of a rank",
        "in shards (fsdp)",
        "25 GB/s",
    ):
        assert line in printed.stdout
    found = json.loads(CliRunner().invoke(app, [*call, "--json"]).stdout)["ranks"]
    assert (found["count"], found["parallel"], found["link_bytes_per_second"]) == (2, "fsdp", 25e9)
