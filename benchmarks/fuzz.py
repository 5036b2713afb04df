"""The readers of model files, fed with files that were altered at random: each opens, or is refused by a clear message.

    python benchmarks/fuzz.py --inputs 20000
    python benchmarks/fuzz.py gguf --replay 1234

Anything else is a finding: another exception, a message of several lines or without end, more than 10 s, more than 1 GiB
of memory, a crash. A finding is printed with the number that `--replay` takes: an input follows from its target, the
seed and its number. Each target runs in a process of its own, which is started again after an input that kills it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from fuzz_mutations import mutate
from fuzz_samples import TARGETS, Target
from lucidlm.core.errors import LucidError

SECONDS, STUCK = 10.0, 60.0
"""After how long an input is a hang: where Python can stop it, and where only another process can."""

MEMORY = 1 << 30
"""Bytes of address space for an input, above what the process had."""

LONGEST_MESSAGE = 3_000


class TooLong(BaseException):
    """No Exception, so that nobody takes it for a damaged file."""


@dataclass(frozen=True)
class Outcome:
    """What became of an input: "opened", "refused", or a finding."""

    number: int
    kind: str
    detail: str = ""


def write_input(target: Target, samples: Sequence[Path], seed: int, number: int, folder: Path) -> Path:
    """Copy one of the samples to `folder`, one file of it altered; return what to open."""
    chance = random.Random(f"{target.name} {seed} {number}")
    sample = chance.choice(samples)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    whole = folder / sample.name
    if sample.is_dir():
        shutil.copytree(sample, whole)
    else:
        shutil.copy(sample, whole)
    victim = chance.choice(sorted(whole.glob(target.victims))) if sample.is_dir() else whole
    victim.write_bytes(mutate(victim.read_bytes(), victim.suffix, chance))
    if target.repair is not None:
        target.repair(whole)
    return whole


def attempt(target: Target, path: Path, number: int) -> Outcome:
    """Open an input and say what came of it."""

    def stop(*_: Any) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        target.open(path)
        return Outcome(number, "opened")
    except LucidError as error:
        message = str(error)
        if "\n" in message or len(message) > LONGEST_MESSAGE:
            return Outcome(number, "finding", f"a message of {len(message):,} characters: {message[:80]!r}")
        return Outcome(number, "refused")
    except BaseException as error:  # panics of Rust's libraries are no Exception
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if "lucidlm" in frame.filename] or frames
        place = f"{Path(own[-1].filename).name}:{own[-1].lineno}"
        return Outcome(number, "finding", f"{type(error).__name__} at {place}: {str(error)[:100]!r}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def work(target: Target, samples: Sequence[Path], seed: int, numbers: range, results: Connection) -> None:
    """Try inputs one after another, within limits, and send what came of them."""
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # Rust's panics are printed there, too
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LUCIDLM_CACHE"] = f"{folder}/input/cache"
        target.open(samples[0])  # what is imported and kept for good is not of an input
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        for number in numbers:
            path = write_input(target, samples, seed, number, Path(folder, "input"))
            results.send(attempt(target, path, number))
    results.close()


def fuzz(target: Target, samples: Sequence[Path], seed: int, numbers: range) -> list[Outcome]:
    """Try inputs in other processes; return what came of each."""
    outcomes: list[Outcome] = []
    while numbers:
        receiver, sender = multiprocessing.Pipe(duplex=False)
        worker = multiprocessing.Process(target=work, args=(target, samples, seed, numbers, sender))
        worker.start()
        sender.close()
        reason = ""
        try:
            while receiver.poll(STUCK):
                outcomes.append(receiver.recv())
                numbers = range(outcomes[-1].number + 1, numbers.stop)
            worker.kill()
            reason = f"nothing for {STUCK:.0f} s"
        except EOFError:
            worker.join()
            reason = f"the process ended ({worker.exitcode})"
        worker.join()
        if numbers:
            outcomes.append(Outcome(numbers.start, "finding", reason))
            numbers = numbers[1:]
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "targets", nargs="*", default=list(TARGETS), help=f"of {', '.join(TARGETS)}; all if none is named"
    )
    parser.add_argument("--inputs", type=int, default=20_000, help="for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--replay", type=int, help="open this input in this process, and leave it in ./fuzz-input")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = 0
    for name in options.targets:
        target = TARGETS[name]
        with tempfile.TemporaryDirectory() as folder:
            samples = target.make(Path(folder))
            if options.replay is not None:
                path = write_input(target, samples, options.seed, options.replay, Path("fuzz-input"))
                print(target.open(path))
                continue
            start = time.monotonic()
            outcomes = fuzz(target, samples, options.seed, range(options.inputs))
        kinds = Counter(outcome.kind for outcome in outcomes)
        print(
            f"{name}: {len(outcomes):,} inputs in {time.monotonic() - start:,.0f} s, {kinds['opened']:,} opened, "
            f"{kinds['refused']:,} refused, {kinds['finding']:,} findings",
            flush=True,
        )
        first: dict[str, Outcome] = {}
        for outcome in outcomes:
            if outcome.kind == "finding":
                first.setdefault(outcome.detail.partition(": ")[0], outcome)
        for outcome in first.values():
            print(f"  {name} --seed {options.seed} --replay {outcome.number}: {outcome.detail}", flush=True)
        found += kinds["finding"]
    raise SystemExit(found > 0)


if __name__ == "__main__":
    main()
