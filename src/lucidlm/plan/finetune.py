"""The plan of a fine-tuning run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from lucidlm.distributed.ranks import Ranks
from lucidlm.model.config import ModelConfig
from lucidlm.model.flops import flops_per_token
from lucidlm.plan.calibrate import calibrated
from lucidlm.plan.config import PlanConfig
from lucidlm.plan.measure import Calibration, measure_finetuning
from lucidlm.plan.place import place_of
from lucidlm.plan.plan import Plan
from lucidlm.plan.training import TrainingRun, plan_training
from lucidlm.train.finetune.config import FinetuneConfig, Tuning
from lucidlm.train.finetune.run import LOOKED_AT, OpenRun, open_run, require_shareable, step_shape
from lucidlm.train.finetune.tuning import tune_backbone
from lucidlm.train.memory import StepShape, step_memory

PASSES: dict[Tuning, float] = {"full": 3.0, "lora": 2.0, "head": 1.0}
"""How many times the work of a forward pass a step is: frozen weights need no gradients, nor does what lies below a head."""


def plan_finetuning(config: FinetuneConfig, how: PlanConfig) -> Plan:
    """Return what the fine-tuning run `config` will take; see `plan_pretraining`.

    Raises
    ------
    InputError: model or data cannot be used, as in the run itself; an unknown accelerator.
    LucidError: the calibration failed, for want of memory perhaps.
    """
    place = place_of(how, config.device, config.precision)
    run = open_run(config if place.here else config.changed(device="cpu", precision="auto"))
    ranks = Ranks(count=how.ranks)
    require_shareable(run.task, ranks)
    ranks.require_share(run.config.batch_size, len(run.parts["train"]), "examples")
    asked, objective, step = run.config, run.objective, step_shape(run)
    shape = objective.model.config
    writes = step.counted > 0
    parts = objective.step_parts(LOOKED_AT)
    steps = asked.planned_steps(objective.steps_per_epoch)
    forward = sum(rows * length * _flops(shape, length, writes) for part in parts for rows, length in part) / len(parts)
    tune = partial(tune_backbone, config=asked)
    planned = TrainingRun(
        name="finetune",
        parameters=_parameters(run),
        loop=asked.loop.changed(max_steps=steps),
        batch_size=asked.batch_size,
        micro_batch=step.rows,
        parts=sum(map(len, parts)) / len(parts),
        ways=1,
        layers=shape.num_layers,
        step_tokens=sum(rows * length for part in parts for rows, length in part) / len(parts),
        step_flops=PASSES[asked.tuning] * forward,
        corpus_tokens=max(1, int(np.sum(objective.lengths))),
        evaluated=len(objective.validation),
        final=len(objective.train) + len(objective.validation),
        unit_flops=forward / asked.batch_size,
        compiled=False,
        compile_pays_from=math.inf,  # it has no setting for that
        memory=lambda rows: step_memory(
            shape,
            StepShape(rows, step.length, step.accumulates, step.counted),
            asked.loop.optimizer,
            place.compute,
            tune,
        ),
    )
    measured = None
    if place.here and how.calibration != "off":
        measured = calibrated(Calibration, measure_finetuning, config, _key(run), anew=how.calibration == "new")
    return plan_training(planned, place, how, measured)


def _flops(shape: ModelConfig, length: int, writes: bool) -> int:
    """Return the operations of a forward pass, a token; without the output head where the model does not write."""
    whole = flops_per_token(shape, length, training=False)
    return whole if writes else whole - 2 * shape.vocab_size * shape.embedding_dim


def _parameters(run: OpenRun) -> dict[str, int]:
    """Return how many parameters the model has, by part."""
    found = {"embedding": 0, "blocks": 0, "head": 0}
    for name, parameter in run.objective.model.named_parameters():
        head = name.split(".")[0] in run.objective.head or name.startswith("lm_head")
        found["head" if head else "embedding" if "embed_" in name else "blocks"] += parameter.numel()
    return found


def _key(run: OpenRun) -> Mapping[str, Any]:
    """Return what the time and the memory of a run's parts depend on, besides the machine."""
    settings = run.config.model_dump(mode="json")
    optimizer = settings.pop("loop")["optimizer"]
    lengths = run.objective.lengths
    return {
        "run": "finetune",
        "settings": {name: value for name, value in settings.items() if name not in ("epochs", "force", "monitor")},
        "model": run.objective.model.config.model_dump(mode="json"),
        "texts": [len(lengths), int(np.sum(lengths)), len(run.objective.validation)],
        "optimizer": [optimizer["name"], optimizer["newton_schulz_steps"]],
    }
