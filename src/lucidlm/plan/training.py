"""The plan of a training run, whatever it learns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lucidlm.core.devices import has_bf16_units
from lucidlm.plan.calibrate import BUSY
from lucidlm.plan.config import PlanConfig
from lucidlm.plan.measure import Calibration
from lucidlm.plan.place import Place
from lucidlm.plan.plan import Plan
from lucidlm.plan.ranks import ROOM, Ranking, Shape, Share
from lucidlm.plan.timeline import timeline
from lucidlm.train.config import LoopConfig
from lucidlm.train.memory import StepMemory

SLACK = 1.5
"""What the C library holds for each byte of activations on a CPU, where that is not measured: blocks that were freed are
seldom taken again for others of the same size."""

BEST, LIBRARIES, FREED = "best weights so far", "Python, PyTorch, libraries", "freed and not taken again"
"""Parts of the memory beside those of a step."""

MANY_EPOCHS = 4
"""Passes over a text up to which they are worth as much as new text (Muennighoff et al. 2023, arXiv:2305.16264)."""


@dataclass(frozen=True)
class TrainingRun:
    """What is to be planned.

    Parameters
    ----------
    name: the command.
    parameters: how many, by part.
    loop: its length, whole.
    batch_size, micro_batch: samples of a step, and of those that are taken at once.
    parts, ways: how many times a step does that, on the average, and at least; see `lucidlm.plan.ranks`.
    layers: of the model.
    step_tokens, step_flops: what a step reads and computes.
    corpus_tokens: of the training part.
    evaluated, final: tokens (or examples) that an evaluation on the way reads, and the one at the end.
    unit_flops: of evaluating one of them.
    compiled, compile_pays_from: whether blocks are compiled, and from how many minutes on that wins back what it takes.
    memory: what a step holds with so many samples at once.
    """

    name: str
    parameters: dict[str, int]
    loop: LoopConfig
    batch_size: int
    micro_batch: int
    parts: float
    ways: int
    layers: int
    step_tokens: float
    step_flops: float
    corpus_tokens: int
    evaluated: float
    final: float
    unit_flops: float
    compiled: bool
    compile_pays_from: float
    memory: Callable[[int], StepMemory]


def plan_training(run: TrainingRun, place: Place, how: PlanConfig, measured: Calibration | None) -> Plan:
    """Return the plan of a run, by what was `measured` of it or by assumptions."""
    held = run.memory(run.micro_batch)
    rates = measured or place.assumed(run.step_flops, run.unit_flops, held.weights, compiled=run.compiled)
    ranking = _ranking(run, held, place, how, rates)
    share = None if how.ranks == 1 else ranking.share(how.ranks)
    available = ranking.available(how.ranks)
    paced = rates if share is None else share.paced(rates, place)
    line = timeline(run.loop, paced, run.evaluated, run.final, 1 + held.optimizer / max(1, held.weights))
    memory, slack = _memory(run, held, place, rates, line.steps)
    if share is None:
        largest = _largest(run, held, memory, slack, place)
    else:
        memory = _memory_of_rank(share, memory, slack)
        room = ROOM * available - sum(memory.values())
        largest = max(0, share.rows + math.floor(room / (slack * max(1.0, ranking.shape.each))))
    own = math.ceil(run.batch_size / how.ranks)
    fits = largest > 0 if run.name == "pretrain" else sum(memory.values()) <= available
    fewest = 1 if fits and share is None else ranking.fewest()
    tokens = line.steps * run.step_tokens
    work = {
        "steps": line.steps,
        "tokens": tokens,
        "epochs": tokens / run.corpus_tokens,
        "FLOPs": line.steps * run.step_flops,
    }
    minutes = sum(line.seconds.values()) / 60
    return Plan(
        run=run.name,
        machine=f"{_where(place, how)}, {'bf16' if place.compute.autocasts else 'fp32'}",
        parameters=run.parameters,
        work=work,
        memory=memory,
        available=round(available),
        largest_micro_batch=largest,
        seconds=line.seconds,
        watts=(rates.watts or place.watts) * (1 if place.shared else how.ranks),
        watts_from="measured" if rates.watts else "assumed",
        bound=_bound(run, rates, share),
        recommended=_recommended(run, place, min(own, largest), minutes, fewest),
        advice=(
            *_advice(run, place, available, how.ranks, memory, largest, minutes, work["epochs"], fewest),
            *(() if share is None else (ranking.gains(fewest, how.ranks),)),
        ),
        assumptions=tuple(_assumptions(run, place, rates, measured, share)),
        prices=how,
        share=share,
    )


def _ranking(run: TrainingRun, held: StepMemory, place: Place, how: PlanConfig, rates: Calibration) -> Ranking:
    """Return what several ranks would do and hold."""
    shape = Shape(
        batch_size=run.batch_size,
        ways=run.ways,
        blocks=4 * run.parameters["blocks"],
        layers=run.layers,
        rows=run.micro_batch,
        several=held,
        memory=run.memory,
    )
    link = place.link if how.link_gb_per_second is None else 1e9 * how.link_gb_per_second
    return Ranking(shape, run.parts, place, rates, run.loop.parallel, link, settable=run.name == "pretrain")


def _where(place: Place, how: PlanConfig) -> str:
    if how.ranks == 1:
        return place.name
    return f"{how.ranks} ranks on {place.name}{'' if place.shared else ' each'}"


def _memory_of_rank(share: Share, memory: dict[str, int], slack: float) -> dict[str, int]:
    """Return the bytes of a rank by part: its share, and of the `memory` of one process what is beside the step's."""
    beside = round((slack - 1) * share.memory["activations"])
    more = {name: memory[name] for name in (BEST, LIBRARIES) if name in memory}
    return {**share.memory, **more, **({FREED: beside} if beside else {})}


def _memory(
    run: TrainingRun, held: StepMemory, place: Place, rates: Calibration, steps: int
) -> tuple[dict[str, int], float]:
    """Return bytes by part, and what is held for each byte of activations."""
    on_cpu = place.compute.device.type == "cpu"
    parts = held.parts()
    if run.loop.patience is not None and on_cpu:
        parts[BEST] = held.weights
    if on_cpu:
        parts[LIBRARIES] = rates.framework
    if rates.steps:
        beside = max(0, rates.peak - (sum(parts.values()) - parts.get(BEST, 0)))
        beside += round(rates.growth * math.log(max(1.0, steps / (rates.steps + 1))))
        slack = 1 + beside / max(1, held.activations)
    else:
        slack = SLACK if on_cpu else 1.0
        beside = round((slack - 1) * held.activations)
    return parts | ({FREED: beside} if beside else {}), slack


def _largest(run: TrainingRun, held: StepMemory, memory: dict[str, int], slack: float, place: Place) -> int:
    """Return the most samples that can be taken at once, on a line through what two numbers of them need."""
    size, room = run.micro_batch, ROOM * place.available - sum(memory.values())
    other = 2 * size if room > 0 else 1
    each = (run.memory(other).activations - held.activations) / (other - size) if other != size else held.activations
    return max(0, size + math.floor(room / (slack * max(1.0, each))))


def _bound(run: TrainingRun, rates: Calibration, share: Share | None) -> str:
    if share is not None and share.exchanging > share.computing:
        return f"what ranks tell each other, {share.exchanging / share.step:.0%} of a step"
    if not rates.steps:
        return "not known without a calibration"
    if rates.waiting > 0.15:
        return f"waiting for data, {rates.waiting:.0%} of a step"
    reached = run.step_flops / rates.step / rates.products
    if reached > 0.5:
        return f"matrix products: {reached:.0%} of their speed in a large square product"
    return f"small operations and memory traffic: products run at {reached:.0%} of their speed in a large square one"


def _recommended(
    run: TrainingRun, place: Place, largest: int, minutes: float, fewest: int | None
) -> dict[str, str | int]:
    narrow = place.compute.device.type != "cpu" or has_bf16_units()
    ranks = "more than can share the batch" if fewest is None else fewest
    found: dict[str, str | int] = {"precision": "bf16" if narrow else "fp32", "ranks": ranks}
    if run.name == "pretrain":  # fine-tuning has no setting for these
        found["compile"] = "on" if minutes >= run.compile_pays_from else "off"
        found["micro-batch"] = max(1, largest)
    return found


def _advice(
    run: TrainingRun,
    place: Place,
    available: float,
    ranks: int,
    memory: dict[str, int],
    largest: int,
    minutes: float,
    epochs: float,
    fewest: int | None,
) -> list[str]:
    found, own = [], math.ceil(run.batch_size / ranks)
    more = f"; {fewest} ranks have room" if fewest is not None and fewest > ranks else ""
    short, settable = sum(memory.values()) > available, run.name == "pretrain"
    if short and not settable:
        found.append(f"memory is short: a smaller --batch-size or --max-length, or --tuning lora, takes less{more}")
    elif short:
        fix = f"--micro-batch {largest} fits" if largest else f"a smaller model or shorter samples are needed{more}"
        found.append(f"memory is short: {fix}")
    elif settable and min(run.micro_batch, own) < min(own, largest):
        found.append(f"there is memory for micro-batches of {min(own, largest)}: larger ones are faster")
    if settable and minutes >= run.compile_pays_from and not run.compiled:
        found.append("--compile on: in a run of this length it gains 5 to 35 %")
    if settable and minutes < run.compile_pays_from and run.compiled:
        found.append("--compile off: compiling takes about a minute, which this run does not win back")
    if place.here and not place.compute.autocasts and (place.compute.device.type == "cuda" or has_bf16_units()):
        found.append("--precision bf16: this device multiplies it in hardware")
    if settable and epochs > MANY_EPOCHS:
        found.append(f"the text is read {epochs:.1f} times; beyond {MANY_EPOCHS}, more text helps more than more steps")
    return found


def _assumptions(
    run: TrainingRun, place: Place, rates: Calibration, measured: Calibration | None, share: Share | None
) -> list[str]:
    found = ["one process is planned (ranks 1)"] if share is None else share.assumptions(place)
    if measured is None:
        found.append(f"time: {place.basis}")
        found.append(f"a command takes {rates.start_up + rates.opening:.0f} s to start")
        if place.compute.device.type == "cpu":
            found.append(f"memory: the C library holds {SLACK:g} bytes for each byte of activations")
        else:
            found.append(
                "memory: a GPU's kernels keep what a CPU's keep; the GPU's context, about half a GiB, is extra"
            )
    else:
        found.append(f"time and peak memory: measured over {measured.steps + 1} steps of this very run")
        if measured.load > BUSY:
            found.append(
                f"others kept {measured.load:.0%} of the machine busy when that was measured: --calibration new, once "
                "they are gone, measures again"
            )
    if rates.watts is None:
        found.append(f"energy: {place.watts:,.0f} W while it runs (no meter that can be read)")
    if run.loop.patience is not None:
        found.append("the run goes on to its end (early stopping is not foreseen)")
    return found
