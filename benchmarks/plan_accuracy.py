"""How far the plan of a run is from what the run takes: wall time of the command, and its peak memory.

    python benchmarks/plan_accuracy.py --text wikitext2.valid.txt --append

Each configuration is planned (`lucidlm plan … --calibration new`) and then run, both as commands of their own; the length of
each run is set by what the calibration found, so that it takes about `--seconds` on any machine. Predicted before, measured
after; nothing is adjusted in between. On a CPU memory is the most that the process held (its resident set), on a GPU the
most that PyTorch held there. Nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from results import record

TIME_TARGET, MEMORY_TARGET = 0.15, 0.10

PRETRAINING: dict[str, str] = {
    "2 layers, 128 wide": "--num-layers 2 --embedding-dim 128 --context 128 --batch-size 16",
    "4 layers, 256 wide": "--depth 4",
    "6 layers, 384 wide": "--depth 6 --batch-size 8",
    "8 layers, 512 wide, micro-batches": "--depth 8 --batch-size 8 --micro-batch 2 --context 128",
    "4 layers, context 1,024": "--num-layers 4 --embedding-dim 192 --num-heads 3 --context 1024 --batch-size 4",
    "4 layers, AdamW, fp32": "--depth 4 --optimizer adamw --precision fp32",
    "4 layers, masked": "--depth 4 --objective masked",
    "3 layers, hybrid, batch of 64": "--depth 3 --objective hybrid --batch-size 64 --context 64",
}
FINETUNING: dict[str, str] = {
    "classifier, all weights": "text-classification --batch-size 16",
    "classifier, LoRA": "text-classification --tuning lora --batch-size 32",
}
ON_GPU: dict[str, str] = {
    "12 layers, 768 wide": "--depth 12 --context 1024 --batch-size 32",
    "12 layers, 768 wide, micro-batches": "--depth 12 --context 1024 --batch-size 32 --micro-batch 8",
    "16 layers, 1,024 wide": "--depth 16 --context 512 --batch-size 32",
}
"""Pretraining as well, where there is a GPU."""

PEAK = """
import atexit, sys, torch
from pathlib import Path
from lucidlm.cli.main import main
from lucidlm.core.devices import peak_memory
atexit.register(lambda: Path({file!r}).write_text(str(peak_memory(torch.device({device!r})))))
sys.argv[0] = "lucidlm"
main()
"""


class Row(NamedTuple):
    """What was predicted of a run, and what it took: seconds and bytes."""

    name: str
    steps: int
    seconds: tuple[float, float]
    memory: tuple[float, float]

    @property
    def errors(self) -> tuple[float, float]:
        """Of time and memory, as shares of what was measured."""
        return tuple(predicted / real - 1 for predicted, real in (self.seconds, self.memory))  # pyright: ignore


def plan(command: Sequence[str], *, anew: bool) -> dict[str, Any]:
    """Return what `lucidlm plan` says of a command."""
    call = [sys.executable, "-m", "lucidlm", "plan", *command, "--json", "--calibration", "new" if anew else "auto"]
    return json.loads(subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True).stdout)


def run(command: Sequence[str], folder: Path) -> tuple[float, int]:
    """Run a command; return its seconds and the most bytes of memory that it held."""
    file, device = folder / "peak", command[command.index("--device") + 1]
    call = [sys.executable, "-c", PEAK.format(file=str(file), device=device), *command]
    start = time.perf_counter()
    with (folder / "log").open("w") as log:
        done = subprocess.run(call, stdout=log, stderr=log)
    took = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{(folder / 'log').read_text()}")
    return took, int(file.read_text())


def judge(name: str, command: Sequence[str], seconds: float, folder: Path) -> Row:
    """Plan a run of about so many seconds, then run it."""
    short = plan([*command, "--max-steps", "100"], anew=True)
    step = short["seconds"]["steps"] / max(1, short["work"]["steps"] - 1)
    # A plan without further steps would say what the rest takes.
    steps = max(5, round(seconds / step))
    whole = [*command, "--max-steps", str(steps)]
    found = plan(whole, anew=False)
    real = run([*whole, "--out", str(folder / "out")], folder)
    print(f"{name}: {found['seconds']['all']:.1f} s predicted, {real[0]:.1f} s real", file=sys.stderr)
    return Row(
        name,
        found["work"]["steps"],
        (found["seconds"]["all"], real[0]),
        (found["memory_bytes"]["peak"], real[1]),
    )


def prepare(text: Path, folder: Path) -> tuple[Path, Path]:
    """Return prepared data, and passages of the text with labels that mean nothing: what is learned takes no time."""
    data, passages = folder / "data", folder / "passages.csv"
    call = [sys.executable, "-m", "lucidlm", "data", "prepare", str(text), "--vocab-size", "4096", "--out", str(data)]
    subprocess.run(call, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    words = text.read_text(encoding="utf-8").split()
    with passages.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        starts = range(0, min(len(words) - 200, 200_000), 50)
        rows.writerows([" ".join(words[at : at + 20 + at % 150]), "ab"[at // 50 % 2]] for at in starts)
    return data, passages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="English text, a MB or more")
    parser.add_argument("--seconds", type=float, default=20.0, help="what the steps of each run take, about")
    parser.add_argument("--only", nargs="+", help="run these configurations, by the beginnings of their names")
    parser.add_argument("--gpu", action="store_true", help="pretrain on the GPU, larger models as well")
    parser.add_argument("--append", action="store_true", help="append the table to RESULTS.md")
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["LUCIDLM_CACHE"] = str(folder / "cache")
        data, passages = prepare(options.text, folder)
        device = ["--device", "cuda" if options.gpu else "cpu"]
        commands = {
            name: ["pretrain", "--data", str(data), *settings.split()]
            for name, settings in (PRETRAINING | (ON_GPU if options.gpu else {})).items()
        }
        model = folder / "model"
        base = ["pretrain", "--data", str(data), "--depth", "3", "--max-steps", "2", "--device", "cpu"]
        run([*base, "--out", str(model)], folder)
        for label, settings in FINETUNING.items():
            task, *rest = settings.split()
            commands[label] = [
                "finetune", task, "--model", str(model), "--data", str(passages), "--epochs", "1000", *rest
            ]  # fmt: skip
        for number, (label, command) in enumerate(commands.items()):
            if options.only and not any(label.startswith(beginning) for beginning in options.only):
                continue
            place = folder / f"run-{number}"
            place.mkdir()
            rows.append(judge(label, [*command, *device], options.seconds, place))
    report(rows, append=options.append)


def report(rows: Sequence[Row], *, append: bool) -> None:
    """Print the table, and what it comes to."""
    header = ["", "steps", "predicted", "real", "error", "memory predicted", "real", "error"]
    cells = [
        [
            row.name,
            f"{row.steps:,}",
            *(f"{seconds:.1f} s" for seconds in row.seconds),
            f"{row.errors[0]:+.1%}",
            *(f"{size / 2**20:,.0f} MiB" for size in row.memory),
            f"{row.errors[1]:+.1%}",
        ]
        for row in rows
    ]
    notes = []
    for index, (what, target) in enumerate((("time", TIME_TARGET), ("peak memory", MEMORY_TARGET))):
        errors = [abs(row.errors[index]) for row in rows]
        within = sum(error <= target for error in errors)
        notes.append(
            f"{what}: median error {statistics.median(errors):.1%}, greatest {max(errors):.1%}; "
            f"{within} of {len(rows)} within {target:.0%}"
        )
    title = "Plans beside the runs: wall time of the command and peak memory"
    if append:
        record(title, header, cells, notes)
        return
    widths = [max(len(row[column]) for row in [header, *cells]) for column in range(len(header))]
    for row in [header, *cells]:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    print("\n".join(notes))


if __name__ == "__main__":
    main()
