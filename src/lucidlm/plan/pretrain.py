"""The plan of a pretraining run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lucidlm.core.io import sha256
from lucidlm.data.corpus.cards import CARD, DataCard
from lucidlm.distributed.ranks import Ranks
from lucidlm.inference.held_out import BATCH
from lucidlm.model.config import ModelConfig
from lucidlm.model.flops import count_parameters, flops_per_token
from lucidlm.plan.calibrate import calibrated
from lucidlm.plan.config import PlanConfig
from lucidlm.plan.measure import Calibration, measure_pretraining
from lucidlm.plan.place import place_of
from lucidlm.plan.plan import Plan
from lucidlm.plan.training import TrainingRun, plan_training
from lucidlm.train.memory import step_memory
from lucidlm.train.pretrain.config import PretrainConfig
from lucidlm.train.pretrain.run import common_tokenizer, resolve, step_shape


def plan_pretraining(config: PretrainConfig, how: PlanConfig) -> Plan:
    """Return what the pretraining run `config` will take.

    Unless `how` says otherwise the run is begun, in a process of its own, for some seconds. Nothing is left behind but
    what that found, in the user's cache.

    Raises
    ------
    InputError: the data cannot be read, the shape is impossible or ranks cannot share the batch, as in the run itself; an
        unknown accelerator.
    LucidError: the calibration failed, for want of memory perhaps.
    """
    place, ranks = place_of(how, config.device, config.precision), Ranks(count=how.ranks)
    cards = [DataCard.load(path) for path in config.data]
    config = resolve(config, common_tokenizer(list(config.data)), place.compute, None if place.here else place.speed)
    shape = config.model
    assert shape is not None
    length, step = config.context_length, step_shape(config)
    ranks.require_share(config.batch_size, sum(card.splits["train"].tokens // length for card in cards), "samples")
    held_out = [card.splits["validation"].tokens for card in cards]
    ways = 2 if config.objective == "hybrid" else 1
    compiled = config.compiled
    run = TrainingRun(
        name="pretrain",
        parameters=parameters_by_part(shape),
        loop=config.loop,
        batch_size=config.batch_size,
        micro_batch=step.rows,
        parts=ways * math.ceil(config.batch_size / ways / step.rows),
        ways=ways,
        layers=shape.num_layers,
        step_tokens=config.batch_size * length,
        step_flops=config.batch_size * length * flops_per_token(shape, length),
        corpus_tokens=sum(card.splits["train"].tokens for card in cards),
        evaluated=sum(_read(tokens, config.validation_tokens / len(held_out), length) for tokens in held_out),
        final=sum(held_out),
        unit_flops=flops_per_token(shape, length, training=False),
        compiled=compiled,
        compile_pays_from=config.compile_pays_from,
        memory=lambda rows: step_memory(shape, replace(step, rows=rows), config.loop.optimizer, place.compute),
    )
    measured = None
    if place.here and how.calibration != "off":
        key = calibration_key(config, compiled)
        measured = calibrated(Calibration, measure_pretraining, config, key, anew=how.calibration == "new")
    return plan_training(run, place, how, measured)


def calibration_key(config: PretrainConfig, compiled: bool) -> Mapping[str, Any]:
    """Return what the time and the memory of a run's parts depend on, besides the machine."""
    optimizer = config.loop.optimizer
    return {
        "run": "pretrain",
        "data": {Path(path).name: sha256(Path(path) / CARD) for path in config.data},
        "model": config.model_dump(mode="json")["model"],
        "step": [config.objective, config.context_length, config.batch_size, config.micro_batch, config.mask_rate],
        "optimizer": [optimizer.name, optimizer.newton_schulz_steps],
        "compute": [config.device, config.precision, compiled],
    }


def parameters_by_part(shape: ModelConfig) -> dict[str, int]:
    """Return how many parameters a language model's embedding, blocks and head have; a tied head has none of its own."""
    every = count_parameters(shape)
    tables = shape.vocab_size * shape.embedding_dim
    embedding = tables + (shape.context_length if shape.position == "learned" else 0) * shape.embedding_dim
    embedding += shape.token_types * shape.embedding_dim
    head = 0 if shape.tied_embeddings else tables
    return {"embedding": embedding, "blocks": every - embedding - head, "head": head}


def _read(tokens: int, limit: float, length: int) -> int:
    """Return how many held-out tokens of a corpus an evaluation reads, which is in whole batches of windows."""
    batch = BATCH * length
    return min(tokens, math.ceil(limit / batch) * batch)
