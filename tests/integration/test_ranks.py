"""Training on several ranks: the same losses and gradients as in one process, whatever becomes of the ranks on the way."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.conftest import tiny_pretraining
from tests.ranks import Launch, launch
from tests.webhook_listener import Listener, listening
from torch import Tensor

from lucidlm.checkpoint.load import load_model
from lucidlm.train.config import LoopConfig, OptimizerConfig
from lucidlm.train.finetune.config import TextClassificationConfig

STEPS, CHECKPOINT, KILLED_AT, SPIKE_AT = 20, 10, 15, 15
RUNS = ("replicated", "sharded", "tuned")
"""AdamW with the model whole on each rank; Muon with the model in shards; a classifier, whose last batches are short."""


@pytest.fixture(scope="module")
def configurations(
    tmp_path_factory: pytest.TempPathFactory, tiny_data: Path, tiny_model: Path, reviews_csv: Path
) -> Path:
    root = tmp_path_factory.mktemp("configurations")
    loop = {"max_steps": STEPS, "evaluations": 2, "checkpoint_steps": CHECKPOINT}
    for name, settings in {
        "replicated": {"parallel": "ddp", "optimizer": {"name": "adamw", "learning_rate": 3e-4}},
        "sharded": {"parallel": "fsdp", "optimizer": {"name": "muon", "learning_rate": 3e-4}},
    }.items():
        config = tiny_pretraining(
            tiny_data, loop={**loop, **settings}, batch_size=8, context_length=32, precision="fp32"
        )
        config.save(root / f"{name}.yaml")
    with reviews_csv.open(encoding="utf-8", newline="") as file:
        # So short that they fit: which window of a longer text is read is drawn on each rank.
        rows = [{**row, "text": " ".join(row["text"].split()[:5])} for row in csv.DictReader(file)]
    (root / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tuned = TextClassificationConfig(
        task="sentiment",
        model=str(tiny_model),
        data=str(root / "reviews.jsonl"),
        on_conflict="keep",
        batch_size=20,
        dropout=0.0,
        token_dropout=0.0,
        wide=False,
        device="cpu",
        precision="fp32",
        loop=LoopConfig(max_steps=STEPS, evaluations=2, optimizer=OptimizerConfig(name="adamw", learning_rate=1e-4)),
    )
    tuned.save(root / "tuned.yaml")
    return root


def commands(configurations: Path, root: Path) -> list[list[object]]:
    return [
        ["finetune" if run == "tuned" else "pretrain", "--config", configurations / f"{run}.yaml", "--out", root / run]
        for run in RUNS
    ]


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    """A webhook that the runs of several ranks are told to call."""
    with listening() as found:
        yield found


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, configurations: Path, listener: Listener) -> Launch:
    """Two ranks, of which one is killed in the sharded run."""
    root = tmp_path_factory.mktemp("two")
    environment = {"KILL": f"sharded:1:{KILLED_AT}", "no_proxy": "127.0.0.1"}
    address = listener.secret.get_secret_value()
    launched = launch(root, 2, commands(configurations, root), restarts=1, LUCIDLM_WEBHOOK=address, **environment)
    launched.told = listener.received[:]
    return launched


def going_back(configurations: Path, root: Path) -> list[list[object]]:
    """Return commands of runs that a spike sends back to their checkpoint."""
    return [
        [
            "pretrain",
            "--config",
            configurations / f"{run}.yaml",
            "--on-spike",
            "roll-back",
            "--out",
            root / f"back-{run}",
        ]
        for run in ("replicated", "sharded")
    ]


def halfway(of: Launch, root: Path) -> list[object]:
    """Copy the sharded run as it was at its checkpoint; return the command that goes on from there."""
    shutil.copytree(of.root / "sharded", root / "resumed")
    for name in ("lucidlm.json", "gradients.pt"):
        (root / "resumed" / name).unlink()
    return ["pretrain", "--resume", "--out", root / "resumed"]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, configurations: Path, two: Launch) -> Launch:
    root = tmp_path_factory.mktemp("one")
    runs = [*commands(configurations, root), *going_back(configurations, root), halfway(two, root)]
    return launch(root, 1, runs, SPIKE=str(SPIKE_AT))


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory, configurations: Path, two: Launch) -> Launch:
    """Four ranks; the last command is a mistake."""
    root = tmp_path_factory.mktemp("four")
    wrong = ["pretrain", "--config", configurations / "sharded.yaml", "--batch-size", 6, "--out", root / "wrong"]
    runs = [*commands(configurations, root), *going_back(configurations, root), halfway(two, root), wrong]
    return launch(root, 4, runs, SPIKE=str(SPIKE_AT))


def furthest(found: Tensor, wanted: Tensor) -> float:
    """Return the largest distance of a row of `found` (steps, N) to that of `wanted`, as a share of the latter's norm."""
    return float(((found - wanted).norm(dim=1) / wanted.norm(dim=1)).max())


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("ranks", ["two", "four"])
def test_losses_and_gradients_are_those_of_one_process(
    request: pytest.FixtureRequest, one: Launch, ranks: str, run: str
) -> None:
    several: Launch = request.getfixturevalue(ranks)
    assert one.code == 0, one.errors
    for figure in ("train_loss", "validation_loss"):
        wanted = one.rows(run, figure)
        assert several.rows(run, figure)[:, 0].tolist() == wanted[:, 0].tolist(), several.errors
        assert several.rows(run, figure)[:, 1].tolist() == pytest.approx(wanted[:, 1].tolist(), rel=1e-6)
    wanted, found = one.gradients(run), several.gradients(run)
    assert len(wanted) == STEPS
    assert len(found) == (STEPS - CHECKPOINT if (run, ranks) == ("sharded", "two") else STEPS)
    assert furthest(found, wanted[-len(found) :]) < 1e-6


@pytest.mark.parametrize("ranks", ["one", "four"])
def test_a_run_goes_on_with_another_number_of_ranks(request: pytest.FixtureRequest, ranks: str) -> None:
    several: Launch = request.getfixturevalue(ranks)
    wanted = several.rows("sharded", "train_loss")
    assert several.rows("resumed", "train_loss")[:, 0].tolist() == list(range(1, STEPS + 1))
    assert several.rows("resumed", "train_loss")[:, 1].tolist() == pytest.approx(wanted[:, 1].tolist(), rel=1e-6)
    assert furthest(several.gradients("resumed"), several.gradients("sharded")[CHECKPOINT:]) < 1e-6


@pytest.mark.parametrize("run", ["back-replicated", "back-sharded"])
def test_ranks_go_back_together_from_a_spike(one: Launch, four: Launch, run: str) -> None:
    for launched in (one, four):
        lines = (launched.root / run / "metrics.jsonl").read_text().splitlines()
        (event,) = [row for row in map(json.loads, lines) if "event" in row]
        assert (event["at"], event["to"], event["skipped"]) == (SPIKE_AT, CHECKPOINT, [CHECKPOINT, SPIKE_AT - 1])
    wanted = one.rows(run, "train_loss")
    assert wanted[:, 0].tolist() == list(range(1, STEPS + 1))
    assert four.rows(run, "train_loss")[:, 1].tolist() == pytest.approx(wanted[:, 1].tolist(), rel=1e-6)
    ratios = one.rows(run, "update_ratio_attention")
    assert len(ratios) == STEPS
    assert four.rows(run, "update_ratio_attention")[:, 1].tolist() == pytest.approx(ratios[:, 1].tolist(), rel=1e-3)


def test_a_killed_rank_stops_all_and_the_run_goes_on_from_its_checkpoint(two: Launch) -> None:
    assert two.code == 0, two.errors
    assert len(re.findall(r"^lucidlm: rank 0 of 2 has lost another rank", two.errors, re.M)) == 1
    assert two.errors.count("lucidlm: ") == 1
    assert "exitcode: -9) local_rank: 1" in two.errors
    assert f"resuming at step {CHECKPOINT} from {two.root}/sharded/checkpoints" in two.errors


def test_one_rank_calls_the_webhook_and_tells_of_another_that_was_killed(two: Launch) -> None:
    told = [(one["run"], one["state"], one["step"]) for one in two.told]
    killed = ("sharded", "failed", KILLED_AT - 1)
    assert told == [
        ("replicated", "finished", STEPS),
        killed,
        ("sharded", "finished", STEPS),
        ("tuned", "finished", STEPS),
    ]
    assert two.told[1]["error"].startswith("rank 0 of 2 has lost another rank, which was killed or cannot be reached")


def test_a_mistake_is_told_once(four: Launch) -> None:
    assert four.code != 0
    assert "--batch-size: a batch of 6 cannot be shared evenly by 4 ranks" in four.errors
    assert four.errors.count("lucidlm: ") == 1
    assert "Warning" not in four.errors
    assert not (four.root / "wrong" / "lucidlm.json").exists()


@pytest.mark.parametrize("run", RUNS)
def test_the_model_directory_is_as_one_process_leaves_it(one: Launch, four: Launch, run: str) -> None:
    wanted, found = (load_model(launched.root / run).model.state_dict() for launched in (one, four))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
    assert (four.root / run / "report.html").exists()
