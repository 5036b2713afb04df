"""How fast one NVIDIA GPU writes with a model of SmolLM2-135M's shape, and trains models of 110 M to 1 B parameters.

    python benchmarks/gpu.py

Needs no network: weights are random, which changes no speed. Writing: 16 tokens of prompt, then 512 tokens each, greedy or
sampled by default, without drafts; counted from the first token of the last sequence to the end, all that the engine does
for a token included. Sides take turns. The seconds until the first two tokens are those of a fresh process, its kernels
compiled anew. Training: a step as the training loop takes it, in bf16, in fp8 too where there are units and torchao for it,
blocks compiled, and the parts of it by CUDA events; every side sees the same data, and the loss is that of the last step.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise

import torch
from torch import nn

from lucidlm.core.devices import has_fp8_units
from lucidlm.inference.config import SamplingConfig
from lucidlm.inference.engine.backend import Backend
from lucidlm.inference.engine.cuda_backend import CudaBackend
from lucidlm.inference.engine.engine import Engine
from lucidlm.inference.engine.torch_backend import TorchBackend
from lucidlm.inference.sampler import Sampler
from lucidlm.inference.sequence import start_rows
from lucidlm.model.config import ModelConfig
from lucidlm.model.flops import count_parameters, flops_per_token
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.train.compilation import compile_blocks
from lucidlm.train.fp8 import take_products_in_fp8
from lucidlm.train.optim import OptimizerConfig, build_optimizer
from results import record, spread

CUDA = torch.device("cuda")
PEAK = 989e12
"""Operations a second of dense bf16 products, as NVIDIA has it for the H100 (SXM)."""

WRITER = ModelConfig(
    vocab_size=49_152, embedding_dim=576, num_heads=9, num_kv_heads=3, ff_dim=1536, num_layers=30, context_length=2048,
    qk_norm=False, norm_eps=1e-5,
)  # fmt: skip
LENGTH, SLOW_LENGTH = 512, 64
"""Tokens that are written, by the kernels and by PyTorch alone."""


def tokenizer_of_random_words() -> Tokenizer:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(40_000)]
    return Tokenizer.train_bpe((" ".join(words[start:]) for start in (0, 0)), WRITER.vocab_size, exact=False)


def write(backend: Backend, tokenizer: Tokenizer, count: int, config: SamplingConfig) -> tuple[float, float]:
    """Return tokens a second, and the seconds until all sequences had two tokens."""
    engine = Engine(backend, Sampler(WRITER.vocab_size, tokenizer), drafts=False)
    draw = random.Random(count)
    prompts = [draw.choices(range(300, tokenizer.vocab_size), k=16) for _ in range(count)]
    rows = start_rows(WRITER, tokenizer, prompts, config)
    began = time.perf_counter()
    for row in rows:
        engine.add(row)
    while any(len(row.tokens) < 2 and row.reason is None for row in rows):
        engine.step()
    first = time.perf_counter()
    before = sum(len(row.tokens) for row in rows)
    while engine.running:
        engine.step()
    return (sum(len(row.tokens) for row in rows) - before) / (time.perf_counter() - first), first - began


def writing(rounds: int) -> None:
    tokenizer = tokenizer_of_random_words()
    model = LanguageModel(WRITER).eval()
    model.load_state_dict(
        {name: value.to(CUDA, torch.bfloat16) for name, value in model.state_dict().items()}, assign=True
    )
    model.to(CUDA)
    room = 128 * -(-(LENGTH + 16) // 32)
    sides: list[tuple[str, Backend, int]] = [
        ("PyTorch", TorchBackend(model, room), SLOW_LENGTH),
        ("kernels and graphs", CudaBackend(model, room), LENGTH),
    ]
    rows = []
    for count in (1, 16, 64):
        for kind, temperature in (("greedy", 0.0), ("sampled", 0.8)):
            found: dict[str, list[float]] = {name: [] for name, _, _ in sides}
            fresh = {}
            for turn in range(rounds + 1):
                for name, backend, length in sides:
                    config = SamplingConfig(temperature=temperature, length=length)
                    speed, first = write(backend, tokenizer, count, config)
                    if turn:
                        found[name].append(speed)
                    else:
                        fresh[name] = first
            rows += [[f"{count} {kind}", name, spread(speeds), f"{fresh[name]:.2f}"] for name, speeds in found.items()]
    record(
        "Writing on a GPU, SmolLM2-135M's shape in bf16",
        ["sequences", "", "tokens/s", "first run: s until all had two tokens"],
        rows,
        [
            f"{torch.cuda.get_device_name()}, {count_parameters(WRITER):,} parameters, random weights, no drafts",
            f"{LENGTH} tokens each, {SLOW_LENGTH} with PyTorch; median of {rounds} rounds (least to greatest) in turn",
        ],
    )


@dataclass(frozen=True)
class Learner:
    """A shape and the batches that it learns from: `batch` windows as long as its context."""

    name: str
    shape: ModelConfig
    batch: int


def learner(name: str, layers: int, width: int, context: int, batch: int) -> Learner:
    shape = ModelConfig(
        vocab_size=32_768,
        embedding_dim=width,
        num_heads=width // 64,
        ff_dim=math.ceil(width * 8 / 3 / 128) * 128,
        num_layers=layers,
        context_length=context,
    )
    return Learner(name, shape, batch)


LEARNERS = (
    learner("110 M", 12, 768, 1024, 32),
    learner("438 M", 20, 1280, 2048, 16),
    learner("1 B", 24, 1792, 2048, 8),
)


def training_parts(
    one: Learner, optimizer_name: str, fp8: bool, steps: int
) -> tuple[list[float], dict[str, float], float]:
    """Return the seconds of each step as it is taken, the mean milliseconds of its parts in further steps, and the loss."""
    torch.manual_seed(0)
    model = LanguageModel(one.shape).to(CUDA)
    optimizer = build_optimizer(model, OptimizerConfig(name=optimizer_name))
    if fp8:
        take_products_in_fp8(model.model)
    compile_blocks(model.model)
    # Few different tokens, so that there is something to learn in a few steps.
    window = torch.randint(one.shape.vocab_size // 64, (one.batch, one.shape.context_length + 1), device=CUDA)
    tokens, targets = window[:, :-1].contiguous(), window[:, 1:].contiguous()
    losses: list[float] = []

    def step(mark: Callable[[str], None]) -> None:
        mark("start")
        with torch.autocast("cuda", torch.bfloat16):
            hidden = model.model(tokens)
            mark("forward")
            loss = model.cross_entropy(hidden, targets)[0] / targets.numel()
        mark("head and loss")
        loss.backward()
        mark("backward")
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        losses.append(torch.stack((loss.detach(), norm)).tolist()[0])
        optimizer.set_scale(0.1)
        optimizer.step()
        optimizer.zero_grad()
        mark("clipping and update")

    def timed() -> float:
        began = time.perf_counter()
        step(lambda _: None)
        torch.cuda.synchronize()
        return time.perf_counter() - began

    for _ in range(3):  # compiles
        timed()
    seconds = [timed() for _ in range(steps)]
    parts: dict[str, list[float]] = {}
    for _ in range(steps):
        events: list[tuple[str, torch.cuda.Event]] = []

        def mark(name: str, events: list[tuple[str, torch.cuda.Event]] = events) -> None:
            events.append((name, torch.cuda.Event(enable_timing=True)))
            events[-1][1].record()

        step(mark)
        torch.cuda.synchronize()
        for (_, before), (name, after) in pairwise(events):
            parts.setdefault(name, []).append(before.elapsed_time(after))
    return seconds, {name: statistics.median(values) for name, values in parts.items()}, losses[-1]


def training(steps: int) -> None:
    formats = ["bf16"]
    if has_fp8_units(CUDA) and find_spec("torchao") is not None:
        formats.append("fp8")
    rows, notes = [], []
    for one in LEARNERS:
        flops = flops_per_token(one.shape, one.shape.context_length)
        tokens = one.batch * one.shape.context_length
        notes.append(
            f"{one.name}: {count_parameters(one.shape):,} parameters, {flops / 1e6:,.0f} MFLOP a token, {one.batch} times "
            f"{one.shape.context_length} tokens a step"
        )
        for name in ("adamw", "muon"):
            for form in formats:
                seconds, parts, loss = training_parts(one, name, form == "fp8", steps)
                rates = [tokens / each for each in seconds]
                used = spread([rate * flops / PEAK for rate in rates], ".1%")
                milliseconds = [f"{value:.1f}" for value in parts.values()]
                rows.append([one.name, name, form, spread(rates), used, f"{loss:.4f}", *milliseconds])
                torch.cuda.empty_cache()
    parts = ["forward, ms", "head and loss", "backward", "clipping and update"]
    record(
        "Training on a GPU",
        ["", "", "", "tokens/s", "MFU", "loss", *parts],
        rows,
        [
            torch.cuda.get_device_name(),
            *notes,
            f"FLOP are 6 a weight in a product, the head once, the causal half of attention; MFU is over {PEAK / 1e12:.0f} "
            "TFLOP/s, of bf16 in fp8's rows too",
            f"blocks compiled; median of {steps} steps (least to greatest); gradients of head and loss are taken in the "
            "forward pass",
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=("writing", "training"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder
        if args.only != "training":
            writing(args.rounds)
        if args.only != "writing":
            training(args.steps)


if __name__ == "__main__":
    main()
