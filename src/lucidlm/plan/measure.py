"""The calibration: a run is begun, with the code and the data of the real one, and what its parts take is measured.

It happens in a process of its own, which ends with it: so the time until it begins is what a command takes to start, and
the most memory that it held is what the command will hold.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from lucidlm.checkpoint.save import save_model
from lucidlm.core.config import CONFIG
from lucidlm.core.devices import Compute, choose_compute
from lucidlm.core.matmul import fast_matmul
from lucidlm.core.memory import keep_freed_memory
from lucidlm.core.progress import console
from lucidlm.inference.held_out import BATCH
from lucidlm.plan.meters import joules
from lucidlm.report.files import REPORT
from lucidlm.report.run import report_run
from lucidlm.train.config import LoopConfig
from lucidlm.train.loop import Loop
from lucidlm.train.pretrain.config import PretrainConfig
from lucidlm.train.pretrain.run import common_tokenizer, make_model, open_objective, provenance
from lucidlm.train.pretrain.sizing import matmul_flops

STEPPING, EVALUATING = 10.0, 2.0
"""Seconds for training steps, and for each kind of evaluation; the first step and the first evaluation are extra."""


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
    framework: int
    products: float
    watts: float | None
    load: float
    steps: int


class _Unevaluated:
    """An objective that is not evaluated, so that the loop's clock shows steps alone."""

    def __init__(self, objective: Any) -> None:
        self._objective = objective

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objective, name)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {}


def measure_pretraining(config: PretrainConfig, load: float) -> Calibration:
    """Begin the resolved run `config`; return what its parts take. For a process of its own."""
    start_up, framework = _begin()
    began = time.monotonic()
    tokenizer, compute = common_tokenizer(list(config.data)), choose_compute(config.device, config.precision)
    objective = open_objective(config, tokenizer, compute)
    model = make_model(config, compute)
    with ExitStack() as stack:
        out = Path(stack.enter_context(TemporaryDirectory(prefix="lucidlm-plan-")))
        config.save(out / CONFIG)
        loop = Loop(model, _Unevaluated(objective), _brief(config.loop), compute, out)
        steps = _steps(loop, compute, time.monotonic() - began)
        stack.enter_context(torch.inference_mode())
        stack.enter_context(fast_matmul(compute.device))
        model.eval()
        window = BATCH * config.context_length
        held = sum(corpus.tokens for corpus in objective.held_out)

        def rate(measure: Callable[[int], Any]) -> float:
            return _seconds_each(lambda batches: measure(window * batches), math.ceil(held / window)) / window

        def evaluate(tokens: int) -> None:
            with torch.autocast(compute.device.type, compute.dtype, enabled=compute.autocasts):
                objective.measure_on(model, tokens)

        evaluated = rate(evaluate)
        final = rate(lambda tokens: objective.measure_on(model, tokens)) if compute.autocasts else evaluated
        outcome = steps.pop("outcome")
        start = time.monotonic()
        save_model(model, out, tokenizer, provenance=provenance(config, outcome))
        report_run([out], out / REPORT)
        saving = time.monotonic() - start
    return Calibration(
        start_up=start_up,
        framework=framework,
        evaluated=evaluated,
        final=final,
        saving=saving,
        peak=_peak(compute),
        products=matmul_flops(compute),
        load=load,
        **steps,
    )


def _begin() -> tuple[float, int]:
    """Return the seconds since the process was started and the bytes it holds; be quiet, and deal with memory as a command."""
    process = psutil.Process()
    start_up = time.time() - process.create_time()
    console.quiet = True
    keep_freed_memory()
    return start_up, process.memory_info().rss


def _brief(loop: LoopConfig) -> LoopConfig:
    """Return the settings of a loop of some seconds that leaves nothing behind."""
    brief = {"max_steps": None, "minutes": STEPPING / 60, "checkpoint_minutes": 1e6, "checkpoint_steps": None}
    return loop.changed(**brief, evaluations=1)


def _steps(loop: Loop[Any], compute: Compute, opening: float) -> dict[str, Any]:
    """Run the loop; return what steps take, and its outcome."""
    before, start = joules(compute.device.type), time.monotonic()
    outcome = loop.run()
    took, after, state = time.monotonic() - start, joules(compute.device.type), outcome.state
    stepping, further = state.wall - state.start_up, max(1, state.step - 1)
    return {
        "opening": opening,
        "first_step": state.start_up,
        "step": stepping / further,
        "waiting": max(0.0, 1 - (state.training - state.start_up) / max(stepping, 1e-9)),
        "watts": None if before is None or after is None else (after - before) / took,
        "steps": further,
        "outcome": outcome,
    }


def _seconds_each(work: Callable[[int], Any], most: int) -> float:
    """Return the seconds that each of several equal pieces of `work` takes, of which there are `most`."""
    start = time.monotonic()
    work(1)
    first = time.monotonic() - start
    pieces = max(1, min(most, int(EVALUATING / max(first, 1e-6))))
    start = time.monotonic()
    work(pieces)
    return (time.monotonic() - start) / pieces


def _peak(compute: Compute) -> int:
    """Return the most bytes that this process has held."""
    if compute.device.type == "cuda":
        return torch.cuda.max_memory_allocated(compute.device)
    try:  # getrusage would tell the parent's peak, if that was higher
        status = Path("/proc/self/status").read_text()
        return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    except (OSError, StopIteration):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
