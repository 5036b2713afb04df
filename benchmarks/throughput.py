"""How fast a model of 13.8 M parameters trains, beside nanoGPT's of the same size and beside the fastest sgemm.

    python benchmarks/throughput.py --nanogpt ../nanoGPT

Vocabulary 8,192, width 384, 6 layers, 6 heads, context 256, batch 16. nanoGPT is compiled with torch.compile and takes
its own AdamW; lucidlm compiles its blocks, and is timed with AdamW, with Muon, and in bf16 where the CPU has units for it. A
step is what training does: forward, backward, clipping, update. All take turns, round after round, so that each meets
the same machine; compilation is left out. The peak is the best of several fp32 products of the model's own shapes and a
square one, in either library that PyTorch takes them from, in the same rounds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from lucidlm.core.devices import has_bf16_units
from lucidlm.core.matmul import fast_matmul
from lucidlm.model.config import ModelConfig
from lucidlm.model.flops import count_parameters, flops_per_token
from lucidlm.model.heads import LanguageModel
from lucidlm.train.compilation import compile_blocks
from lucidlm.train.optim import OptimizerConfig, build_optimizer
from results import record, spread

CPU = torch.device("cpu")
BATCH, CONTEXT = 16, 256
SHAPE = ModelConfig(vocab_size=8192, embedding_dim=384, num_heads=6, ff_dim=1024, num_layers=6, context_length=CONTEXT)
TOKENS = BATCH * CONTEXT
PRODUCTS = (
    (2048, 2048, 2048),
    (TOKENS, SHAPE.embedding_dim, SHAPE.embedding_dim),
    (TOKENS, SHAPE.embedding_dim, SHAPE.ff_dim),
    (TOKENS, SHAPE.ff_dim, SHAPE.embedding_dim),
)

Step = Callable[[Tensor, Tensor], object]


def lucidlm_step(optimizer_name: str, *, bf16: bool, compiled: bool) -> Step:
    """Return a training step as `lucidlm.train.loop` takes it."""
    model = LanguageModel(SHAPE)
    optimizer = build_optimizer(model, OptimizerConfig(name=optimizer_name))
    if compiled:
        compile_blocks(model.model)

    def step(tokens: Tensor, targets: Tensor) -> None:
        with fast_matmul(CPU):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = model.loss(tokens, targets)[0] / targets.numel()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.set_scale(0.1)
            optimizer.step()
            optimizer.zero_grad()

    return step


def nanogpt_step(folder: Path, *, compiled: bool) -> Step:
    """Return a training step as nanoGPT's train.py takes it."""
    sys.path.insert(0, str(folder))
    from model import GPT, GPTConfig

    model = GPT(
        GPTConfig(
            block_size=CONTEXT,
            vocab_size=SHAPE.vocab_size,
            n_layer=SHAPE.num_layers,
            n_head=SHAPE.num_heads,
            n_embd=SHAPE.embedding_dim,
            dropout=0.0,
            bias=False,
        )
    )
    optimizer = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), "cpu")
    forward = torch.compile(model) if compiled else model

    def step(tokens: Tensor, targets: Tensor) -> None:
        forward(tokens, targets)[1].backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def seconds_of(action: Callable[[], object], repeats: int) -> float:
    """Return the mean time of `repeats` runs."""
    start = time.perf_counter()
    for _ in range(repeats):
        action()
    return (time.perf_counter() - start) / repeats


def sgemm_speed(repeats: int = 5) -> float:
    """Return the best speed of an fp32 product, in operations per second."""
    best = 0.0
    for m, k, n in PRODUCTS:
        a, b, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
        fastest = min(seconds_of(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), 1) for _ in range(repeats + 1))
        best = max(best, 2 * m * k * n / fastest)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, required=True, help="a checkout of karpathy/nanoGPT")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--steps", type=int, default=3, help="steps of each in a round")
    parser.add_argument("--eager", action="store_true", help="compile neither")
    options = parser.parse_args()
    compiled = not options.eager

    torch.manual_seed(0)
    window = torch.randint(SHAPE.vocab_size, (BATCH, CONTEXT + 1))
    tokens, targets = window[:, :-1].contiguous(), window[:, 1:].contiguous()
    steps = {
        "nanoGPT, AdamW": nanogpt_step(options.nanogpt, compiled=compiled),
        "lucidlm, AdamW": lucidlm_step("adamw", bf16=False, compiled=compiled),
        "lucidlm, Muon + AdamW": lucidlm_step("muon", bf16=False, compiled=compiled),
    }
    if has_bf16_units():
        steps["lucidlm, AdamW, bf16"] = lucidlm_step("adamw", bf16=True, compiled=compiled)
    for step in steps.values():  # compiles, and fills caches
        step(tokens, targets)
        step(tokens, targets)
    speeds: dict[str, list[float]] = {name: [] for name in steps}
    default_peaks, peaks = [], []
    for _ in range(options.repeats):
        for name, step in steps.items():
            speeds[name].append(TOKENS / seconds_of(lambda step=step: step(tokens, targets), options.steps))
        default_peaks.append(sgemm_speed())
        with fast_matmul(CPU):
            peaks.append(max(default_peaks[-1], sgemm_speed()))

    flops, peak = flops_per_token(SHAPE, CONTEXT), max(peaks)
    reference = speeds["nanoGPT, AdamW"]
    rows = []
    for name, values in speeds.items():
        ratios = [value / other for value, other in zip(values, reference, strict=True)]
        rates = [value * flops for value in values]
        share = "–" if "bf16" in name else spread([rate / peak for rate in rates], ".0%")
        rows.append([name, spread(values), spread(ratios, ".2f"), spread([rate / 1e9 for rate in rates]), share])
    record(
        f"Training throughput, {'compiled' if compiled else 'eager'}",
        ["", "tokens/s", "ratio to nanoGPT", "GFLOP/s", "share of the sgemm peak"],
        rows,
        [
            f"{count_parameters(SHAPE):,} parameters, {flops / 1e6:.1f} MFLOP a token (6 a weight in a product, the head "
            "once, and the causal half of attention); nanoGPT's products are of the same size",
            f"sgemm peak {peak / 1e9:.0f} GFLOP/s; the best that PyTorch reaches by default {max(default_peaks) / 1e9:.0f}",
            f"median of {options.repeats} rounds of {options.steps} steps each, with the least and the greatest",
        ],
    )


if __name__ == "__main__":
    main()
