"""Soak: pretrain for some minutes and watch the process's resident memory.

    python benchmarks/soak.py --minutes 10

Prepares a small corpus, runs `lucidlm pretrain` in a process of its own with evaluations and checkpoints on the way,
reads its memory once a second, and says how much it grew after the warm-up (the first fifth of the run).
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from lucidlm.core.devices import describe_machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--text", help="a source to train on instead of made-up words")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.text or str(make_text(Path(folder) / "words.txt"))
        data, model = f"{folder}/data", f"{folder}/model"
        lucidlm("data", "prepare", source, "--out", data)
        samples = watch(
            [
                sys.executable,
                "-m",
                "lucidlm",
                "pretrain",
                "--data",
                data,
                "--out",
                model,
                "--minutes",
                str(arguments.minutes),
                "--depth",
                "3",
            ]
        )
    steady = samples[len(samples) // 5 :]
    tenth = max(1, len(steady) // 10)
    first, last = statistics.median(steady[:tenth]), statistics.median(steady[-tenth:])
    print(f"machine: {describe_machine()}")
    print(f"resident memory after warm-up: first tenth {first / 1e6:.1f} MB, last tenth {last / 1e6:.1f} MB")
    print(f"growth: {100 * (last / first - 1):+.2f} % over {arguments.minutes:g} minutes (target: less than 2 %)")
    print(f"peak: {max(samples) / 1e6:.1f} MB")


def make_text(path: Path, documents: int = 4000) -> Path:
    """Write paragraphs of made-up words, the same each time."""
    draw = random.Random(0)
    words = ["".join(draw.choices("aeioulnrst", k=draw.randint(2, 8))) for _ in range(3000)]
    path.write_text("\n\n".join(" ".join(draw.choices(words, k=120)) for _ in range(documents)))
    return path


def lucidlm(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "lucidlm", *arguments], check=True)


def watch(command: list[str]) -> list[int]:
    """Run `command` and return its resident memory, in bytes, second by second."""
    samples = []
    with subprocess.Popen(command) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            samples.append(watched.memory_info().rss)
            time.sleep(1)
    if process.returncode:
        sys.exit(f"pretraining failed with exit code {process.returncode}")
    return samples


if __name__ == "__main__":
    main()
