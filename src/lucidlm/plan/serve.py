"""What serving a model that writes will take: memory, how many texts fit, how fast they come, what a token costs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from lucidlm.checkpoint.load import load_model
from lucidlm.core.amounts import count
from lucidlm.core.progress import log
from lucidlm.core.seeds import numpy_generator
from lucidlm.inference.config import EngineConfig, SamplingConfig
from lucidlm.inference.engine.backend import Backend
from lucidlm.inference.engine.engine import Engine
from lucidlm.inference.engine.opening import CACHE_SHARE, open_backend
from lucidlm.inference.sampler import Sampler
from lucidlm.inference.sequence import start_rows
from lucidlm.model.config import ModelConfig
from lucidlm.model.flops import count_parameters
from lucidlm.model.heads import LanguageModel
from lucidlm.plan.config import PlanConfig
from lucidlm.plan.place import FRAMEWORK, Place, place_of
from lucidlm.plan.plan import BasePlan, named_parts, size
from lucidlm.tokenize.tokenizer import Tokenizer

PROMPT, WRITTEN = 256, 32
"""Tokens of a text in the calibration."""


@dataclass(frozen=True)
class Speed:
    """Tokens a second.

    Parameters
    ----------
    alone, together: written for one text, and for `texts` texts at a time, all of them counted.
    reading: read of a prompt.
    """

    alone: float
    together: float
    texts: int
    reading: float


@dataclass(frozen=True)
class ServingPlan(BasePlan):
    """What serving takes. What was measured is named in `assumptions`.

    Parameters
    ----------
    memory: bytes, by part, with the cache full; of the GPU, if there is one.
    available: bytes that there are for it, those that were taken for measuring among them.
    token: bytes of the cache that a token takes.
    cached: tokens that the cache has room for.
    context: the longest text, in tokens.
    speed: None where nothing was measured.
    most_speed: tokens a second that the memory's bandwidth allows for one text; None: unknown.
    """

    run: str
    machine: str
    parameters: int
    memory: dict[str, int]
    available: int
    token: int
    cached: int
    context: int
    speed: Speed | None
    most_speed: float | None
    watts: float
    assumptions: tuple[str, ...]
    prices: PlanConfig
    advice: tuple[str, ...] = ()

    @property
    def texts(self) -> int:
        """How many texts as long as the context the cache has room for."""
        return self.cached // self.context

    @property
    def cost(self) -> float | None:
        """What a million tokens cost that are written for many at a time, in the prices' currency; None: unknown."""
        return None if self.speed is None else self.cost_of(1e6 / self.speed.together)

    def to_dict(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "machine": self.machine,
            "parameters": self.parameters,
            "memory_bytes": {**self.memory, "peak": self.peak, "available": self.available},
            "fits": self.fits,
            "cache": {"bytes_a_token": self.token, "tokens": self.cached, "texts_of_the_context": self.texts},
            "context": self.context,
            "tokens_a_second": None if self.speed is None else vars(self.speed),
            "most_tokens_a_second_alone": self.most_speed,
            "cost_of_a_million_tokens": self.cost,
            "advice": list(self.advice),
            "assumptions": list(self.assumptions),
        }

    def rows(self) -> list[tuple[str, str]]:
        rows = [("run", f"{self.run}, {self.machine}"), ("parameters", count(self.parameters))]
        rows += named_parts("memory", self.memory, size)
        rows += [("memory there is", f"{size(self.available)}{'' if self.fits else ': it does not fit'}")]
        room = f"{count(self.cached)} tokens of {self.token / 1024:,.1f} KiB"
        rows += [("cache", f"{room}, texts of the whole context: {self.texts:,} of {self.context:,}")]
        if self.speed is not None:
            rows += [
                ("writing, alone", f"{self.speed.alone:,.0f} tokens/s"),
                (f"writing, {self.speed.texts} together", f"{self.speed.together:,.0f} tokens/s"),
                ("reading", f"{self.speed.reading:,.0f} tokens/s"),
            ]
        if self.most_speed is not None:
            rows += [("writing, alone, at most", f"{self.most_speed:,.0f} tokens/s")]
        return rows if self.cost is None else [*rows, ("cost of a million tokens", f"{self.cost:,.4g}")]


def plan_serving(source: str, engine: EngineConfig, most_running: int, device: str, how: PlanConfig) -> ServingPlan:
    """Plan `lucidlm serve` with one model that writes.

    Parameters
    ----------
    most_running: texts that are written at a time.

    Raises
    ------
    InputError: there is no such model or it does not write, or there is no such accelerator; see `open_backend`.
    """
    place = place_of(how, device, "auto")
    if not place.here or how.calibration == "off":
        model, _ = load_model(source).causal_lm()
        return _assumed(source, model.config, place, how, most_running)
    log("calibrating: the model is opened and writes for some seconds")
    before = _held(place)
    model, tokenizer = load_model(source, device=place.compute.device).causal_lm()
    loaded = _held(place)
    backend = open_backend(model, engine, most_running, tokenizer)
    speed = _measured(backend, model, tokenizer, most_running)
    token, cached = backend.token_bytes, backend.blocks * backend.block_size
    used = token * min(cached, most_running * (PROMPT + WRITTEN))
    memory = {
        "Python and libraries": FRAMEWORK if place.compute.device.type == "cuda" else before,
        "the model as it is loaded": max(0, loaded - before),
        "what writes, and what it writes with": max(0, _held(place) - loaded - used),
        "cache, full": token * cached,
    }
    advice = []
    if cached < most_running * model.config.context_length:
        wanted = token * most_running * model.config.context_length
        advice = [f"{most_running} texts of the whole context would take {size(wanted)} of cache: longer ones wait"]
    return ServingPlan(
        run=f"serve {source}",
        machine=place.name,
        parameters=count_parameters(model.config),
        memory=memory,
        available=place.available,
        token=token,
        cached=cached,
        context=model.config.context_length,
        speed=speed,
        most_speed=None,
        watts=place.watts,
        assumptions=(
            f"measured with prompts of {PROMPT} tokens, or half the context, {WRITTEN} tokens written to each",
            f"{place.watts:,.0f} W are assumed",
        ),
        prices=how,
        advice=tuple(advice),
    )


def _measured(backend: Backend, model: LanguageModel, tokenizer: Tokenizer, most_running: int) -> Speed:
    """Write for one and for many, after a first text that is not timed."""
    length = min(PROMPT, model.config.context_length // 2)
    written = min(WRITTEN, model.config.context_length - length)
    generator = numpy_generator(0, "plan")

    def run(texts: int, length: int, written: int) -> float:
        prompts = generator.integers(0, tokenizer.vocab_size, (texts, length)).tolist()
        sampling = SamplingConfig(temperature=1.0, length=written)
        rows = start_rows(model.config, tokenizer, prompts, sampling, ())
        engine = Engine(backend, Sampler(model.config.vocab_size, tokenizer), most_running=most_running, drafts=False)
        for row in rows:
            engine.add(row)
        while engine.waiting or any(len(row.tokens) < 1 for row in rows):
            engine.step()
        tokens, start = sum(len(row.tokens) for row in rows), time.perf_counter()
        while engine.running:
            engine.step()
        return (sum(len(row.tokens) for row in rows) - tokens) / (time.perf_counter() - start)

    def reading() -> float:
        prompt = generator.integers(0, tokenizer.vocab_size, length).tolist()
        rows = start_rows(model.config, tokenizer, [prompt], SamplingConfig(length=1), ())
        engine = Engine(backend, Sampler(model.config.vocab_size, tokenizer), drafts=False)
        engine.add(rows[0])
        start = time.perf_counter()
        while engine.running or engine.waiting:
            engine.step()
        return length / (time.perf_counter() - start)

    run(1, length, min(4, written))
    return Speed(run(1, length, written), run(most_running, length, written), most_running, reading())


def _assumed(source: str, shape: ModelConfig, place: Place, how: PlanConfig, most_running: int) -> ServingPlan:
    """Return the plan for a machine where nothing is measured: memory by the shape, and the most that bandwidth allows."""
    on_gpu = place.compute.device.type == "cuda"
    each = 2 if on_gpu else 4
    weights, token = each * count_parameters(shape), 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * each
    room = int(CACHE_SHARE * max(0, place.available - FRAMEWORK - weights))
    cached = max(shape.context_length, min(most_running * shape.context_length, room // token))
    bandwidth = f"the most that {place.bandwidth / 1e9:,.0f} GB/s allow" if place.bandwidth else "no speed is known"
    return ServingPlan(
        run=f"serve {source}",
        machine=place.name,
        parameters=count_parameters(shape),
        memory={"Python and libraries": FRAMEWORK, "weights": weights, "cache, full": token * cached},
        available=place.available,
        token=token,
        cached=cached,
        context=shape.context_length,
        speed=None,
        most_speed=place.bandwidth / weights if place.bandwidth else None,
        watts=place.watts,
        assumptions=(f"weights and cache in {'bf16' if on_gpu else 'fp32'}", f"nothing was measured: {bandwidth}"),
        prices=how,
    )


def _held(place: Place) -> int:
    if place.compute.device.type == "cuda":
        return torch.cuda.memory_allocated(place.compute.device)
    return psutil.Process().memory_info().rss
