"""Whether a server holds: 64 clients that read streams, some of which go away, for some minutes.

    python benchmarks/serve_soak.py MODEL --minutes 10

Every answer is compared with the greedy text that the same model writes without a server, or with its beginning where
the client went away. At the end no text may be running, and no memory may have been lost (less than 2 % from the first
fifth on). Exit code 1: something of that is not so.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import time
from collections import Counter

import httpx
import psutil

from lucidlm.checkpoint.load import load_model
from lucidlm.core.devices import describe_machine
from lucidlm.inference.config import EngineConfig, SamplingConfig
from lucidlm.inference.decode import Writer
from prompts import PROMPTS
from streams import PATIENCE, free_port, serving, stream

CLIENTS, LENGTH = 64, 48


async def soak(
    url: str, right: dict[str, str], minutes: float, process: psutil.Process
) -> tuple[Counter[str], list[int]]:
    """Return how many answers were right, cut off by the client, or wrong, and the server's memory, in bytes."""
    found, memory, end = Counter[str](), list[int](), time.monotonic() + 60 * minutes
    limits = httpx.Limits(max_connections=CLIENTS)

    async def one(client: httpx.AsyncClient, number: int) -> None:
        draw = random.Random(number)
        while time.monotonic() < end:
            prompt = draw.choice(list(right))
            leave = draw.randint(1, 60) if draw.random() < 0.3 else None
            body: dict[str, object] = {"prompt": prompt, "max_tokens": LENGTH, "temperature": 0}
            answer = await stream(client, body, leave)
            if answer.whole:
                found["whole" if answer.text == right[prompt] else "wrong"] += 1
            else:
                found["left" if right[prompt].startswith(answer.text) else "wrong"] += 1

    async def watch() -> None:
        while time.monotonic() < end:
            memory.append(process.memory_info().rss)
            await asyncio.sleep(1)

    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=limits) as client:
        await asyncio.gather(watch(), *(one(client, number) for number in range(CLIENTS)))
    return found, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--quantize", default="auto")
    args = parser.parse_args()

    engine = EngineConfig(backend=args.backend, quantize=args.quantize)
    writer = Writer(*load_model(args.model).causal_lm(), engine)
    prompts = [f"{number}. {prompt}" for number in range(4) for prompt in PROMPTS]
    config = SamplingConfig(temperature=0, length=LENGTH)
    right = {prompt: writer.generate([prompt], config)[0].text for prompt in prompts}
    del writer
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = ["--port", str(port), "--backend", args.backend, "--quantize", args.quantize]
    with serving(["-m", "lucidlm", "serve", f"model={args.model}", *options], url) as process:
        found, memory = asyncio.run(soak(url, right, args.minutes, process))
        time.sleep(2)
        measures = httpx.get(f"{url}/metrics").text.splitlines()
        held = [line for line in measures if line.startswith(("lucidlm_running_texts{", "lucidlm_waiting_texts{"))]
        free = all(line.endswith(" 0.0") for line in held)
    steady = memory[len(memory) // 5 :]
    tenth = max(1, len(steady) // 10)
    growth = statistics.median(steady[-tenth:]) / statistics.median(steady[:tenth]) - 1
    print(f"machine: {describe_machine()}")
    print(f"{CLIENTS} clients, {args.minutes:g} minutes: {sum(found.values()):,} answers: {dict(found)}")
    tenths = [f"{statistics.median(memory[len(memory) * part // 10 :][:5]) / 1e6:.1f}" for part in range(10)]
    print(f"memory in MB at each tenth of the time: {', '.join(tenths)}")
    print(f"places free at the end: {free}; memory {memory[-1] / 1e6:.0f} MB, growth {growth:+.2%}")
    sys.exit(not (free and growth < 0.02 and not found["wrong"]))


if __name__ == "__main__":
    main()
