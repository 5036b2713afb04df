"""A run that a spike sends back comes to the same bits as one that never saw the batches it skips, stopped or not."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lucidlm.core.devices import Compute, choose_compute
from lucidlm.core.errors import LucidError
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.train.checkpoints import list_checkpoints
from lucidlm.train.config import LoopConfig, OptimizerConfig
from lucidlm.train.loop import Loop, Outcome, describe_outcome

Batch = tuple[Tensor, Tensor]
TIMED = ("seconds", "tokens_per_second", "wall_seconds", "memory")
SHAPE = ModelConfig(vocab_size=16, embedding_dim=16, num_heads=2, ff_dim=32, num_layers=1, dropout=0.1)


class Counting:
    """Learn to count: each token is the one before it and one more, but two less in the `bad` batches.

    The loss of those is `factor` times as large; `passed` are batches that are left out of the data.
    """

    monitor = "validation_loss"
    higher_is_better = False
    noise = 0.0

    def __init__(
        self,
        bad: Collection[int] = (),
        passed: Collection[int] = (),
        factor: float = 4.0,
        at_step: Callable[[int], None] = lambda step: None,
    ) -> None:
        self.bad, self.passed, self.factor, self.at_step = bad, passed, factor, at_step

    def batches(self, first_step: int) -> Iterator[list[Batch]]:
        numbers = [number for number in range(1000) if number not in self.passed]
        for number in numbers[first_step:]:
            self.at_step(number)
            start = torch.randint(16, (8, 1), generator=torch.Generator().manual_seed(number))
            tokens = (start + torch.arange(9)) % 16
            yield [(tokens[:, :-1], (tokens[:, :-1] - 2) % 16 if number in self.bad else tokens[:, 1:])]

    def counted(self, batch: Batch) -> int:
        return batch[1].numel()

    def tokens(self, batch: Batch) -> int:
        return batch[0].numel()

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, LanguageModel)
        bad = torch.equal(batch[1], (batch[0] - 2) % 16)
        return model.loss(*batch)[0] * (self.factor if bad else 1.0)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        tokens = (torch.arange(16)[:, None] + torch.arange(9)) % 16
        return {"validation_loss": self.loss(model, (tokens[:, :-1], tokens[:, 1:])).item() / 128}

    def describe(self, step: int) -> str:
        return f"{step} (seed {step})"


class PowerCutError(Exception): ...


def configured(**fields: Any) -> LoopConfig:
    optimizer = OptimizerConfig(name="muon", learning_rate=3e-3)
    settings = {"max_steps": 90, "checkpoint_steps": 10, "evaluations": 9, "patience": 99, "on_spike": "roll-back"}
    return LoopConfig(**{"optimizer": optimizer, **settings, **fields})


def run(
    objective: Counting, out: Path, cpu: Compute, *, resume: bool = False, **fields: Any
) -> tuple[Outcome, dict[str, Tensor]]:
    model = LanguageModel(SHAPE, seed=0)
    outcome = Loop(model, objective, configured(**fields), cpu, out).run(resume=resume)
    return outcome, model.state_dict()


def rows(out: Path, *, timed: bool = False) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in row if timed or key not in TIMED} for row in found]


def events(out: Path) -> list[dict[str, Any]]:
    return [row for row in rows(out) if "event" in row]


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome, dict[str, Tensor]]:
    """What a run leaves, and comes to, that goes back once and is not stopped."""
    out = tmp_path_factory.mktemp("straight")
    return out, *run(Counting(bad={57}), out, choose_compute("cpu", "fp32"))


def test_by_default_a_run_only_tells(tmp_path: Path, cpu: Compute) -> None:
    outcome, _ = run(Counting(bad={57}), tmp_path / "warned", cpu, on_spike="warn")
    found = rows(tmp_path / "warned")
    before, step = (next(row for row in found if row["step"] == n and "train_loss" in row) for n in (57, 58))
    assert step["train_loss"] > 6 * before["train_loss"]
    spike = next(row for row in found if "event" in row)
    assert spike == {"step": 58, "event": "spike", "loss": step["train_loss"], "grad_norm": step["grad_norm"]}
    assert "roll_backs" not in describe_outcome(outcome)


def test_going_back_is_as_if_the_batches_had_never_been(
    tmp_path: Path, cpu: Compute, straight: tuple[Path, Outcome, dict[str, Tensor]]
) -> None:
    """The last two checkpoints are of steps 40 and 50, neither a hundred steps old: the older one is taken."""
    out, outcome, found = straight
    wanted, weights = run(Counting(passed=range(40, 58)), tmp_path, cpu)
    assert same(found, weights)
    assert outcome.evaluation == wanted.evaluation
    assert (outcome.state.step, outcome.state.tokens) == (90, wanted.state.tokens)
    (event,) = events(out)
    assert (event["step"], event["event"], event["at"], event["to"]) == (40, "roll-back", 58, 40)
    assert event["skipped"] == [40, 57]
    assert event["loss"] > 6
    assert [row for row in rows(out) if "event" not in row] == rows(tmp_path)
    assert describe_outcome(outcome)["roll_backs"] == [
        {key: event[key] for key in event if key not in ("step", "event")}
    ]


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_what_is_not_finite_sends_back_too(tmp_path: Path, cpu: Compute, factor: float) -> None:
    _, found = run(Counting(bad={27}, factor=factor), tmp_path / "back", cpu)
    _, weights = run(Counting(passed=range(10, 28)), tmp_path / "clean", cpu)
    assert same(found, weights)
    (event,) = events(tmp_path / "back")
    assert "loss" not in event
    assert event["skipped"] == [10, 27]


def test_a_run_that_halted_may_be_set_to_go_back(tmp_path: Path, cpu: Compute) -> None:
    """What the message says that one may do."""
    with pytest.raises(LucidError, match=r"set loop.on_spike to roll-back in config.yaml and resume"):
        run(Counting(bad={27}, factor=float("nan")), tmp_path / "halted", cpu, on_spike="warn")
    _, found = run(Counting(bad={27}, factor=float("nan")), tmp_path / "halted", cpu, resume=True)
    _, weights = run(Counting(passed=range(10, 28)), tmp_path / "clean", cpu)
    assert same(found, weights)


def test_one_spike_after_another(tmp_path: Path, cpu: Compute) -> None:
    """The second comes before there is a new checkpoint; the third after two of them."""
    _, found = run(Counting(bad={57, 59, 105}), tmp_path / "back", cpu)
    _, weights = run(Counting(passed=[*range(40, 60), *range(90, 106)]), tmp_path / "clean", cpu)
    assert [event["skipped"] for event in events(tmp_path / "back")] == [[40, 57], [40, 59], [90, 105]]
    assert [event["to"] for event in events(tmp_path / "back")] == [40, 40, 70]
    assert same(found, weights)


@pytest.mark.parametrize("cut_at", [55, 58, 62, 77])
@pytest.mark.parametrize("stop", ["power cut", "signal"])
def test_a_run_that_goes_on_skips_the_same(
    tmp_path: Path, cpu: Compute, straight: tuple[Path, Outcome, dict[str, Tensor]], cut_at: int, stop: str
) -> None:
    """It is stopped before the spike, right after it, before the next checkpoint, and after that."""

    def cut(number: int) -> None:
        if number == cut_at and stop == "power cut":
            raise PowerCutError
        if number == cut_at:
            os.kill(os.getpid(), signal.SIGTERM)

    whole, expected, weights = straight
    if stop == "power cut":
        with pytest.raises(PowerCutError):
            run(Counting(bad={57}, at_step=cut), tmp_path, cpu)
    else:
        stopped, _ = run(Counting(bad={57}, at_step=cut), tmp_path, cpu)
        assert stopped.stopped_by == signal.SIGTERM
    outcome, found = run(Counting(bad={57}), tmp_path, cpu, resume=True)
    assert same(found, weights)
    assert outcome.state.roll_backs == expected.state.roll_backs
    assert rows(tmp_path) == rows(whole)
    kept = [[path.name for path in list_checkpoints(out / "checkpoints")] for out in (whole, tmp_path)]
    assert kept == [["step-000070", "step-000080"]] * 2


def test_without_a_checkpoint_it_goes_on_or_says_why_it_cannot(
    tmp_path: Path, cpu: Compute, capsys: pytest.CaptureFixture[str]
) -> None:
    run(Counting(bad={57}), tmp_path / "on", cpu, checkpoint_steps=100)
    assert [event["event"] for event in events(tmp_path / "on")][:1] == ["spike"]
    line = "at step 57, batch 57 (seed 57), and there is no checkpoint to go back to yet"
    assert line in capsys.readouterr().err
    with pytest.raises(LucidError, match=r"not finite at step 3, batch 3 .* no checkpoint to go back to yet"):
        run(Counting(bad={3}, factor=float("nan")), tmp_path / "halted", cpu)


def test_it_goes_back_so_often_and_no_more(tmp_path: Path, cpu: Compute, capsys: pytest.CaptureFixture[str]) -> None:
    run(Counting(bad={57, 85}), tmp_path / "on", cpu, roll_backs=1)
    assert [event["event"] for event in events(tmp_path / "on")][:2] == ["roll-back", "spike"]
    assert "batch 85 (seed 85), after 1 roll-backs, as many as are allowed" in capsys.readouterr().err
    with pytest.raises(LucidError, match=r"batch 13 .*after 1 roll-backs, as many.*last good state is .*step-000010"):
        run(Counting(bad={12, 13}, factor=float("nan")), tmp_path / "halted", cpu, roll_backs=1)


def test_a_stop_in_between_takes_no_place(tmp_path: Path, cpu: Compute) -> None:
    """Else what there is to go back to would depend on when a run was interrupted."""

    def stop(number: int) -> None:
        if number == 54:
            os.kill(os.getpid(), signal.SIGTERM)

    def kept() -> list[str]:
        return [path.name for path in list_checkpoints(tmp_path / "checkpoints")]

    run(Counting(at_step=stop), tmp_path, cpu)
    assert kept() == ["step-000040", "step-000050", "step-000055"]
    run(Counting(), tmp_path, cpu, resume=True)
    assert kept() == ["step-000070", "step-000080"]
