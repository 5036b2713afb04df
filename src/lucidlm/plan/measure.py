"""The calibration: a run is begun, with the code and the data of the real one, and what its parts take is measured.

It happens in a process of its own, which ends with it: so the time until it begins is what a command takes to start, and
the most memory that it held is what the command will hold.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from copy import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import psutil
import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from lucidlm.checkpoint.save import save_model
from lucidlm.core.config import CONFIG
from lucidlm.core.devices import Compute, choose_compute, peak_memory
from lucidlm.core.matmul import fast_matmul
from lucidlm.core.memory import configure_memory
from lucidlm.core.progress import console
from lucidlm.inference.held_out import BATCH
from lucidlm.plan.meters import joules
from lucidlm.report.files import REPORT
from lucidlm.report.run import report_run
from lucidlm.tasks.base.task import unknown_to
from lucidlm.train.config import LoopConfig
from lucidlm.train.finetune import run as finetuning
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.tuning import apply_tuning, finish_tuning
from lucidlm.train.loop import Loop, Outcome
from lucidlm.train.pretrain import run as pretraining
from lucidlm.train.pretrain.config import PretrainConfig
from lucidlm.train.pretrain.sizing import matmul_flops

STEPPING, EVALUATING = 10.0, 2.0
"""Seconds for training steps, and for each kind of evaluation; the first step and the first evaluation are extra."""

FEW = 32
"""Examples that are judged to see how many can be in that time."""


class Calibration(BaseModel):
    """What the parts of a run take, in seconds where nothing else is said.

    Parameters
    ----------
    start_up: until the program runs: the interpreter and what it imports.
    opening: until the loop begins: the data are checked, the model is made.
    first_step: of training, compilation included.
    step: each further one, waits for its data included; `waiting` is the share of it that those take.
    evaluated, final: an evaluation's, for each token or example: on the way, and at the end of the run.
    saving: writing the model directory and the report.
    peak: bytes of memory that the process held at most; on a GPU those of its memory that PyTorch did.
    growth: bytes of that which come with each factor of e in the number of steps.
    framework: bytes that it held before there was a model.
    products: operations a second in square matrix products.
    watts: what the device drew in training; None where it does not tell.
    load: the share of the machine that others kept busy just before.
    steps: how many steps were measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    start_up: float
    opening: float
    first_step: float
    step: float
    waiting: float
    evaluated: float
    final: float
    saving: float
    peak: int
    growth: float
    framework: int
    products: float
    watts: float | None
    load: float
    steps: int


FEWEST = 2
"""Steps after the first one, however long that took: it may compile."""


class _Watched:
    """An objective that ends after some seconds of steps and is not evaluated, so that the loop's clock shows steps alone,
    and the memory held before each."""

    def __init__(self, objective: Any) -> None:
        self._objective = objective
        self.held: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objective, name)

    def batches(self, first_step: int) -> Iterator[Any]:
        process, end = psutil.Process(), math.inf
        for number, batches in enumerate(self._objective.batches(first_step)):
            if number > FEWEST and time.monotonic() >= end:
                return
            if number == 1:
                end = time.monotonic() + STEPPING
            self.held.append(process.memory_info().rss)
            yield batches

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {}

    @property
    def growth(self) -> float:
        """Bytes by which memory grows while the number of steps does by a factor of e, since the first quarter of them.

        Blocks of ever other sizes find no place among those that were freed, and oneDNN keeps what it has compiled for
        each shape; both ever more seldom.
        """
        quarter = len(self.held) // 4
        if quarter < 2:
            return 0.0
        return max(0.0, (self.held[-1] - self.held[quarter]) / math.log((len(self.held) - 1) / quarter))


def measure_pretraining(config: PretrainConfig, load: float) -> Calibration:
    """Begin the resolved run `config`; return what its parts take. For a process of its own."""
    beginning = _begin()
    began = time.monotonic()
    tokenizer, compute = (
        pretraining.common_tokenizer(list(config.data)),
        choose_compute(config.device, config.precision),
    )
    objective = pretraining.open_objective(config, tokenizer, compute)
    model = pretraining.make_model(config, compute)
    with TemporaryDirectory(prefix="lucidlm-plan-") as name, fast_matmul(compute.device):
        out = Path(name)
        config.save(out / CONFIG)
        watched = _Watched(objective)
        loop = Loop(model, cast(Any, watched), _brief(config.loop), compute, out)
        outcome, steps = _steps(loop, watched, compute, time.monotonic() - began)
        model.eval()
        window = BATCH * config.context_length
        windows = math.ceil(sum(corpus.tokens for corpus in objective.held_out) / window)

        def rate(dtype: torch.dtype) -> float:
            def measure(batches: int) -> None:
                narrow = torch.autocast(compute.device.type, dtype, enabled=dtype is not torch.float32)
                with torch.inference_mode(), narrow:
                    objective.measure_on(model, window * batches)

            return _seconds_each(measure, windows) / window

        evaluated = rate(compute.dtype)
        final = rate(torch.float32) if compute.autocasts else evaluated  # the last evaluation is exact

        def save() -> None:
            save_model(model, out, tokenizer, provenance=pretraining.provenance(config, outcome))
            report_run([out], out / REPORT)

        return _calibration(beginning, steps, evaluated, final, _seconds(save), compute, load)


def measure_finetuning(config: FinetuneConfig, load: float) -> Calibration:
    """Begin the run `config`; return what its parts take. For a process of its own."""
    beginning = _begin()
    began = time.monotonic()
    run = finetuning.open_run(config)
    config, objective, compute = run.config, run.objective, run.compute
    model = objective.model
    apply_tuning(model, config, objective.head)
    unknown_to(objective.tokenizer, run.task, [*run.parts["train"], *run.parts["validation"]])
    with TemporaryDirectory(prefix="lucidlm-plan-") as name, fast_matmul(compute.device):
        out = Path(name)
        config.save(out / CONFIG)
        watched = _Watched(objective)
        loop = Loop(model, cast(Any, watched), _brief(config.loop), compute, out, layer_decay=config.layer_decay)
        outcome, steps = _steps(loop, watched, compute, time.monotonic() - began)
        model.eval()
        train, held = len(objective.train), len(objective.validation)

        def judged(share: float, *, finish: bool = False) -> float:
            some = copy(objective)
            some.keep(share)
            with torch.inference_mode():
                return _seconds(lambda: some.finish(model) if finish else some.evaluate(model))

        some = min(1.0, FEW / max(1, held or train))
        share = min(1.0, some * EVALUATING / max(judged(some), 1e-6))
        evaluated, final = judged(share) / share / max(1, held), judged(share, finish=True) / share / (train + held)

        def save() -> None:
            finish_tuning(model, config, objective.head, out)
            origin = {**finetuning.provenance(run, outcome), **objective.provenance()}
            save_model(model, out, objective.tokenizer, provenance=origin)
            objective.save_extras(out)
            report_run([out], out / REPORT)

        return _calibration(beginning, steps, evaluated, final, _seconds(save), compute, load)


def _begin() -> tuple[float, int]:
    """Return the seconds since the process was started, and the bytes it holds; from now on behave as a command does."""
    process = psutil.Process()
    start_up = time.time() - process.create_time()
    console.quiet = True
    configure_memory()
    return start_up, process.memory_info().rss


def _brief(loop: LoopConfig) -> LoopConfig:
    """Return the settings of a loop that its objective ends, and that leaves nothing behind."""
    brief = {"max_steps": 10**9, "minutes": None, "checkpoint_minutes": 1e6, "checkpoint_steps": None}
    return loop.changed(**brief, evaluations=1)


def _steps(loop: Loop[Any], watched: _Watched, compute: Compute, opening: float) -> tuple[Outcome, dict[str, Any]]:
    """Run the loop; return its outcome, and what steps take."""
    before, start = joules(compute.device.type), time.monotonic()
    outcome = loop.run()
    took, after, state = time.monotonic() - start, joules(compute.device.type), outcome.state
    stepping, further = state.wall - state.start_up, state.step - 1
    return outcome, {
        "opening": opening,
        "first_step": state.start_up,
        "step": stepping / further,
        "waiting": max(0.0, 1 - (state.training - state.start_up) / max(stepping, 1e-9)),
        "watts": None if before is None or after is None else (after - before) / took,
        "steps": further,
        "growth": watched.growth if compute.device.type == "cpu" else 0.0,
    }


def _calibration(
    beginning: tuple[float, int],
    steps: dict[str, Any],
    evaluated: float,
    final: float,
    saving: float,
    compute: Compute,
    load: float,
) -> Calibration:
    peak = peak_memory(compute.device)  # before the products, which are no part of the run
    start_up, framework = beginning
    return Calibration(
        start_up=start_up,
        framework=framework,
        evaluated=evaluated,
        final=final,
        saving=saving,
        peak=peak,
        products=matmul_flops(compute),
        load=load,
        **steps,
    )


def _seconds(work: Callable[[], Any]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


def _seconds_each(work: Callable[[int], Any], most: int) -> float:
    """Return the seconds that each of several equal pieces of `work` takes, of which there are `most`."""
    first = _seconds(lambda: work(1))
    pieces = max(1, min(most, int(EVALUATING / max(first, 1e-6))))
    return _seconds(lambda: work(pieces)) / pieces
