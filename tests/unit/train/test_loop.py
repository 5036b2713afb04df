"""The training loop on a problem small enough to know the answer to."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lucidlm.core.devices import Compute
from lucidlm.core.errors import InputError, LucidError
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.model.loss import IGNORE_INDEX
from lucidlm.train.checkpoints import list_checkpoints
from lucidlm.train.config import LoopConfig, OptimizerConfig, ScheduleConfig
from lucidlm.train.loop import Loop, describe_outcome
from lucidlm.train.optim import Optimizers, build_optimizer

Batch = tuple[Tensor, Tensor]


class Line:
    """Fit a line to noisy points: a batch is inputs (B, 3) and outputs (B,)."""

    monitor = "validation_loss"
    higher_is_better = False
    noise = 0.0

    def __init__(self, figures: Sequence[float] = (), at_step: Callable[[int], None] = lambda step: None) -> None:
        self.figures, self.evaluations, self.at_step = list(figures), 0, at_step
        self.weights_seen: list[Tensor] = []

    def batches(self, first_step: int) -> Iterator[list[Batch]]:
        step = first_step
        while True:
            self.at_step(step)
            generator = torch.Generator().manual_seed(step)
            x = torch.randn(8, 3, generator=generator)
            yield [(x, x @ torch.tensor([1.0, -2.0, 0.5]))]
            step += 1

    def counted(self, batch: Batch) -> int:
        return len(batch[1])

    def tokens(self, batch: Batch) -> int:
        return len(batch[1])

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return (model(batch[0])[:, 0] - batch[1]).square().sum()

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        assert not model.training
        self.weights_seen.append(next(model.parameters()).detach().clone())
        self.evaluations += 1
        if self.figures:
            return {"validation_loss": self.figures[self.evaluations - 1]}
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(10**6))
        return {"validation_loss": self.loss(model, (x, x @ torch.tensor([1.0, -2.0, 0.5]))).item()}

    def describe(self, step: int) -> str:
        return f"{step} (points of seed {step})"


class Figures(Line):
    """Likewise, judged by figures made up beforehand, of which the greater is the better, with losses beside them."""

    monitor = "validation_bleu"
    higher_is_better = True

    def __init__(self, figures: Sequence[float], losses: Sequence[float]) -> None:
        super().__init__(figures)
        self.losses = losses

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        super().evaluate(model)
        found = self.evaluations - 1
        return {"validation_bleu": self.figures[found], "validation_loss": self.losses[found]}


class Net(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(3, 1), nn.Dropout(dropout)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.dropout(x))


def configured(**fields: Any) -> LoopConfig:
    optimizer = OptimizerConfig(name="adamw", learning_rate=0.05, weight_decay=0.0)
    return LoopConfig(**{"max_steps": 20, "optimizer": optimizer, "clip": 1e9, **fields})


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_it_learns(tmp_path: Path, cpu: Compute) -> None:
    model = Net()
    outcome = Loop(model, Line(), configured(max_steps=200), cpu, tmp_path).run()
    assert model.linear.weight[0].tolist() == pytest.approx([1.0, -2.0, 0.5], abs=0.02)
    assert outcome.stopped_by is None
    assert outcome.evaluation["validation_loss"] < 0.01
    assert outcome.state.step == 200
    assert outcome.state.tokens == 1600
    assert describe_outcome(outcome)["steps"] == 200


def test_it_needs_an_end(tmp_path: Path, cpu: Compute) -> None:
    with pytest.raises(InputError, match="the run would never end"):
        Loop(Net(), Line(), LoopConfig(), cpu, tmp_path)


# ---------------------------------------------------------------------- losses over the whole batch


def sequences(causal: bool) -> tuple[Tensor, Tensor]:
    """Return tokens and targets (6, 8) in which rows count very different numbers of positions, one of them none."""
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(16, (6, 8), generator=generator)
    targets = tokens.roll(-1, 1) if causal else tokens.clone()
    for row, count in enumerate([8, 1, 0, 5, 2, 7]):
        targets[row, count:] = IGNORE_INDEX
    return tokens, targets


class Sequences(Line):
    """The six sequences, in micro-batches of `sizes`."""

    def __init__(self, causal: bool, sizes: Sequence[int]) -> None:
        super().__init__(figures=[0.0] * 100)
        self.causal, self.sizes = causal, list(sizes)

    def batches(self, first_step: int) -> Iterator[list[Batch]]:
        tokens, targets = sequences(self.causal)
        while True:
            yield list(zip(tokens.split(self.sizes), targets.split(self.sizes), strict=True))

    def counted(self, batch: Batch) -> int:
        return int((batch[1] != IGNORE_INDEX).sum())

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, LanguageModel)
        return model.loss(*batch)[0]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("sizes", [[1] * 6, [2, 4], [5, 1]])
def test_micro_batches_make_the_gradient_of_the_whole_batch(
    tmp_path: Path, cpu: Compute, monkeypatch: pytest.MonkeyPatch, causal: bool, sizes: list[int]
) -> None:
    """Rows that count 8, 1, 0, 5, 2 and 7 tokens: a mean of means would weigh them wrongly."""
    shape = ModelConfig(vocab_size=16, embedding_dim=8, num_heads=2, ff_dim=16, num_layers=2, causal=causal)
    reference = LanguageModel(shape)
    tokens, targets = sequences(causal)
    logits = reference(tokens)
    nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX).backward()
    expected = {name: parameter.grad for name, parameter in reference.named_parameters()}

    seen: dict[str, Tensor] = {}
    model = LanguageModel(shape)
    monkeypatch.setattr(
        Optimizers, "step", lambda self: seen.update({n: p.grad.clone() for n, p in model.named_parameters()})
    )
    Loop(model, Sequences(causal, sizes), LoopConfig(max_steps=1, clip=1e9), cpu, tmp_path).run()
    assert seen.keys() == expected.keys()
    for name, gradient in seen.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-5)
    assert lines(tmp_path)[0]["train_loss"] == pytest.approx(
        nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX).item(), abs=1e-5
    )


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_micro_batches_make_the_updates_of_the_whole_batch(tmp_path: Path, cpu: Compute, name: str) -> None:
    # eps well above rounding: AdamW's first steps divide a gradient by itself, however small it is.
    optimizer = OptimizerConfig(name=name, learning_rate=1e-3, muon_learning_rate=1e-3, eps=1e-3)
    shape = ModelConfig(vocab_size=16, embedding_dim=8, num_heads=2, ff_dim=16, num_layers=2)
    found = []
    for sizes in ([6], [1] * 6):
        model = LanguageModel(shape)
        config = LoopConfig(max_steps=4, clip=1.0, optimizer=optimizer)
        Loop(model, Sequences(True, sizes), config, cpu, tmp_path / str(sizes)).run()
        found.append(model.state_dict())
    for key in found[0]:
        # Muon stretches the smallest parts of a gradient, and their rounding with them, a hundredfold.
        torch.testing.assert_close(found[0][key], found[1][key], atol=1e-6 if name == "adamw" else 2e-5, rtol=0)


# ---------------------------------------------------------------------- clipping, rate, dropout


def test_gradients_are_clipped(tmp_path: Path, cpu: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    model, norms = Net(), []

    def step(self: Optimizers) -> None:
        norms.append(math.sqrt(sum(p.grad.square().sum().item() for p in model.parameters())))

    monkeypatch.setattr(Optimizers, "step", step)
    Loop(model, Line(), configured(max_steps=3, clip=0.25), cpu, tmp_path).run()
    assert norms == pytest.approx([0.25] * 3, rel=1e-4)
    assert all(line["grad_norm"] > 1 for line in lines(tmp_path) if "grad_norm" in line)  # as it was before


def test_the_rate_follows_the_schedule_and_is_never_zero(tmp_path: Path, cpu: Compute) -> None:
    config = configured(max_steps=10, schedule=ScheduleConfig(warmup=0.2, decay=0.5))
    Loop(Net(), Line(), config, cpu, tmp_path).run()
    rates = [line["learning_rate"] / 0.05 for line in lines(tmp_path) if "learning_rate" in line]
    assert rates == pytest.approx([0.25, 0.75, 1, 1, 1, 0.9, 0.7, 0.5, 0.3, 0.1])


def test_dropout_depends_on_the_seed_and_the_step_only(tmp_path: Path, cpu: Compute) -> None:
    def train(name: str, seed: int) -> Tensor:
        torch.rand(len(name))  # whatever else drew numbers before
        model = Net(dropout=0.5)
        Loop(model, Line(), configured(seed=seed), cpu, tmp_path / name).run()
        return model.linear.weight.detach()

    assert torch.equal(train("a", 0), train("another", 0))
    assert not torch.equal(train("b", 0), train("c", 1))


# ---------------------------------------------------------------------- evaluation


def test_evaluations_are_spread_over_the_run_its_end_included(tmp_path: Path, cpu: Compute) -> None:
    Loop(Net(), Line(), configured(max_steps=20, evaluations=4), cpu, tmp_path).run()
    assert [line["step"] for line in lines(tmp_path) if "validation_loss" in line] == [5, 10, 15, 20]


def test_a_run_of_fewer_steps_than_evaluations_evaluates_at_each(tmp_path: Path, cpu: Compute) -> None:
    Loop(Net(), Line(), configured(max_steps=3, evaluations=10), cpu, tmp_path).run()
    assert [line["step"] for line in lines(tmp_path) if "validation_loss" in line] == [1, 2, 3]


@pytest.mark.parametrize(
    ("figures", "losses", "best_step", "stale"),
    [
        ([0, 0, 0], [6.0, 5.0, 4.0], 6, 0),  # all equal: the lowest loss
        ([0, 0, 0], [4.0, 5.0, 6.0], 2, 2),
        ([1, 2, 2], [4.0, 5.0, 6.0], 4, 1),  # the figure comes first
        ([2, 2, 1], [4.0, 4.0, 1.0], 4, 2),  # and where the loss is equal too, the later weights
    ],
)
def test_equal_figures_are_told_apart_by_the_loss(
    tmp_path: Path, cpu: Compute, figures: list[float], losses: list[float], best_step: int, stale: int
) -> None:
    model, objective = Net(), Figures(figures, losses)
    outcome = Loop(model, objective, configured(max_steps=6, evaluations=3, patience=9), cpu, tmp_path).run()
    assert (outcome.state.best_step, outcome.state.stale) == (best_step, stale)
    assert torch.equal(model.linear.weight, objective.weights_seen[best_step // 2 - 1])


@pytest.mark.parametrize(("noise", "best_step"), [(0.0, 2), (0.05, 2), (0.15, 4), (0.25, 6)])
def test_weights_that_are_worse_by_chance_only_stay_if_they_are_the_later_ones(
    tmp_path: Path, cpu: Compute, noise: float, best_step: int
) -> None:
    model, objective = Net(), Figures([0.9, 0.8, 0.7], [4.0, 5.0, 6.0])
    objective.noise = noise
    outcome = Loop(model, objective, configured(max_steps=6, evaluations=3, patience=9), cpu, tmp_path).run()
    assert (outcome.state.best, outcome.state.best_step, outcome.state.stale) == (0.9, best_step, 2)
    assert torch.equal(model.linear.weight, objective.weights_seen[best_step // 2 - 1])


def test_early_stopping_brings_back_the_best_weights(tmp_path: Path, cpu: Compute) -> None:
    objective = Line(figures=[5, 3, 4, 3.5, 1])
    model = Net()
    outcome = Loop(model, objective, configured(max_steps=10, evaluations=5, patience=2), cpu, tmp_path).run()
    assert objective.evaluations == 4
    assert outcome.state.step == 8
    assert (outcome.state.best, outcome.state.best_step) == (3, 4)
    assert torch.equal(model.linear.weight, objective.weights_seen[1])
    assert not torch.equal(model.linear.weight, objective.weights_seen[3])


def test_higher_may_be_better(tmp_path: Path, cpu: Compute) -> None:
    objective = Line(figures=[0.5, 0.9, 0.7])
    objective.higher_is_better = True
    model = Net()
    outcome = Loop(model, objective, configured(max_steps=3, evaluations=3, patience=9), cpu, tmp_path).run()
    assert outcome.state.best == 0.9
    assert torch.equal(model.linear.weight, objective.weights_seen[1])


def test_without_patience_the_last_weights_stay(tmp_path: Path, cpu: Compute) -> None:
    objective = Line(figures=[1, 5, 9])
    model = Net()
    Loop(model, objective, configured(max_steps=3, evaluations=3), cpu, tmp_path).run()
    assert torch.equal(model.linear.weight, objective.weights_seen[2])


def test_with_nothing_held_out_the_last_weights_stay(tmp_path: Path, cpu: Compute) -> None:
    class Blind(Line):
        def evaluate(self, model: nn.Module) -> dict[str, float]:
            super().evaluate(model)
            return {}

    objective, model = Blind(), Net()
    outcome = Loop(model, objective, configured(max_steps=4, evaluations=4, patience=1), cpu, tmp_path).run()
    assert outcome.evaluation == {}
    assert outcome.state.best is None
    assert outcome.state.step == 4
    assert torch.equal(model.linear.weight, objective.weights_seen[-1])


# ---------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_halts_before_the_update(tmp_path: Path, cpu: Compute, value: float) -> None:
    class Broken(Line):
        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            good = super().loss(model, batch)
            return good * value if torch.equal(batch[0], next(self.batches(7))[0][0]) else good

    model = Net()
    loop = Loop(model, Broken(), configured(checkpoint_steps=3), cpu, tmp_path)
    weights: list[Tensor] = []
    loop.optimizer.step = lambda step=loop.optimizer.step: (step(), weights.append(model.linear.weight.clone()))[0]
    with pytest.raises(LucidError, match=r"step 7, batch 7 \(points of seed 7\).*step-000006.*learning rate") as caught:
        loop.run()
    assert caught.value.exit_code == 1
    assert torch.equal(model.linear.weight, weights[-1])
    assert len(weights) == 7
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == ["step-000003", "step-000006"]
    assert [line["step"] for line in lines(tmp_path) if "train_loss" in line] == [1, 2, 3, 4, 5, 6, 7]


def test_a_gradient_that_is_not_finite_halts_too(tmp_path: Path, cpu: Compute) -> None:
    class Steep(Line):
        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            return model(batch[0]).abs().sqrt().sum()  # fine at zero, but for its slope

    with pytest.raises(LucidError, match=r"norm \((nan|inf)\) is not finite at step 0.*no checkpoint had been due yet"):
        Loop(Net(), Steep(), configured(), cpu, tmp_path).run()


# ---------------------------------------------------------------------- checkpoints and resuming


def test_resuming_gives_the_same_bits(tmp_path: Path, cpu: Compute) -> None:
    config = configured(max_steps=12, evaluations=3, patience=5, checkpoint_steps=5)
    straight, resumed = Net(dropout=0.3), Net(dropout=0.3)
    expected = Loop(straight, Line(), config, cpu, tmp_path / "straight").run()

    class PowerCutError(Exception): ...

    def cut(step: int) -> None:
        if step == 8:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        Loop(Net(dropout=0.3), Line(at_step=cut), config, cpu, tmp_path / "cut").run()
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "tr')  # the line the power cut fell into
    outcome = Loop(resumed, Line(), config, cpu, tmp_path / "cut").run(resume=True)
    assert torch.equal(straight.linear.weight, resumed.linear.weight)
    assert outcome.evaluation == expected.evaluation
    assert (outcome.state.step, outcome.state.tokens, outcome.state.best) == (12, 96, expected.state.best)

    def figures(name: str) -> list[dict[str, Any]]:
        timed = {"seconds", "tokens_per_second", "wall_seconds", "memory"}
        return [{key: line[key] for key in line.keys() - timed} for line in lines(tmp_path / name)]

    assert figures("cut") == figures("straight")


def test_the_best_weights_survive_a_resume(tmp_path: Path, cpu: Compute) -> None:
    config = configured(max_steps=8, evaluations=4, patience=9, checkpoint_steps=5)
    objective = Line(figures=[1, 2, 3, 4])
    Loop(Net(), objective, config, cpu, tmp_path).run()
    model = Net()
    outcome = Loop(model, Line(figures=[3, 4]), config, cpu, tmp_path).run(resume=True)
    assert (outcome.state.best, outcome.state.best_step) == (1, 2)
    assert torch.equal(model.linear.weight, objective.weights_seen[0])


def test_resuming_a_run_that_had_stopped_early_trains_no_further(tmp_path: Path, cpu: Compute) -> None:
    def interrupt(step: int) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    config = configured(max_steps=8, evaluations=8, patience=3)
    figures = [1, 2, 3, 4, 5, 6, 7, 8]
    outcome = Loop(Net(), Line(figures, interrupt), config, cpu, tmp_path).run()
    assert (outcome.stopped_by, outcome.state.stale) == (signal.SIGTERM, 3)
    outcome = Loop(Net(), Line(figures), config, cpu, tmp_path).run(resume=True)
    assert (outcome.stopped_by, outcome.state.step) == (None, 4)


def test_there_has_to_be_something_to_resume(tmp_path: Path, cpu: Compute) -> None:
    with pytest.raises(InputError, match="there is no checkpoint to resume from"):
        Loop(Net(), Line(), configured(), cpu, tmp_path).run(resume=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends_the_run(tmp_path: Path, cpu: Compute, number: signal.Signals) -> None:
    before = signal.getsignal(number)

    def interrupt(step: int) -> None:
        if step == 4:
            os.kill(os.getpid(), number)

    outcome = Loop(Net(), Line(at_step=interrupt), configured(), cpu, tmp_path).run()
    assert outcome.stopped_by == number
    assert outcome.state.step == 5
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == ["step-000005"]
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_interrupts_at_once(tmp_path: Path, cpu: Compute) -> None:
    def interrupt(step: int) -> None:
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        Loop(Net(), Line(at_step=interrupt), configured(), cpu, tmp_path).run()


# ---------------------------------------------------------------------- so many minutes


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Slow(Line):
    """The first step takes 20 s, as one that compiles does, the others 2 s, an evaluation 5 s."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock, self.steps = clock, 0

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        if model.training:
            self.clock.now += 2 if self.steps else 20
            self.steps += 1
        return super().loss(model, batch)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        self.clock.now += 5
        return super().evaluate(model)


def test_minutes_are_wall_time_and_the_rate_falls_with_them(
    tmp_path: Path, cpu: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    objective = Slow(clock)
    config = configured(max_steps=None, minutes=10, evaluations=5, checkpoint_minutes=3)
    outcome = Loop(Net(), objective, config, cpu, tmp_path).run()
    assert 600 <= clock.now - 1000 < 600 + 2 + 5
    assert outcome.state.wall == clock.now - 1000
    assert objective.evaluations == 5
    rates = [line["learning_rate"] / 0.05 for line in lines(tmp_path) if "learning_rate" in line]
    assert max(rates) == 1
    assert rates[-1] < 0.02
    assert [line["step"] for line in lines(tmp_path) if "validation_loss" in line][-1] == outcome.state.step
    assert list_checkpoints(tmp_path / "checkpoints")


def test_time_before_a_stop_counts_after_a_resume(
    tmp_path: Path, cpu: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    config = configured(max_steps=None, minutes=10, evaluations=2)

    def interrupt(step: int) -> None:
        if clock.now >= 1300:
            os.kill(os.getpid(), signal.SIGTERM)

    objective = Slow(clock)
    objective.at_step = interrupt
    Loop(Net(), objective, config, cpu, tmp_path).run()
    stopped = clock.now
    clock.now += 86_400  # a day goes by
    outcome = Loop(Net(), Slow(clock), config, cpu, tmp_path).run(resume=True)
    assert outcome.state.wall == pytest.approx(600, abs=30)
    assert clock.now - (stopped + 86_400) == pytest.approx(300, abs=30)


def test_the_optimiser_has_every_parameter_once() -> None:
    shape = ModelConfig(vocab_size=16, embedding_dim=8, num_heads=2, ff_dim=16, num_layers=2)
    model = LanguageModel(shape)
    optimizer = build_optimizer(model, OptimizerConfig())
    groups = [p for member in optimizer.members for group in member.param_groups for p in group["params"]]
    assert len(groups) == len({id(p) for p in groups}) == len(list(model.parameters()))
