"""How far the plan of several ranks is from the memory that each of them takes: processes of torchrun on the CPU.

    python benchmarks/plan_ranks.py --text wikitext2.valid.txt --append

Each configuration is planned from one process (`lucidlm plan pretrain --ranks N`), then run by N processes over gloo.
Predicted before, measured after: the most that a process held (its resident set), of the rank that held most. Times are not
compared, since ranks on a CPU share its cores; and gloo is not NCCL.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from plan_accuracy import plan
from results import record

TARGET = 0.10
RANKS = (2, 4)
PARALLEL = ("ddp", "fsdp")
STEPS = 5

WORKER = """
import os, sys
from pathlib import Path
import torch
from lucidlm.cli.main import main
from lucidlm.core.devices import peak_memory
sys.argv[0] = "lucidlm"
try:
    main()
finally:
    Path(os.environ["PEAKS"], os.environ["RANK"]).write_text(str(peak_memory(torch.device("cpu"))))
"""


class Row(NamedTuple):
    """What was predicted of a rank's memory, and the most that one took, in bytes."""

    name: str
    predicted: int
    real: int

    @property
    def error(self) -> float:
        return self.predicted / self.real - 1


def run(command: Sequence[str], ranks: int, folder: Path) -> int:
    """Run a command on several ranks; return the most bytes of memory that one of them held."""
    (folder / "worker.py").write_text(WORKER)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    call = [*launcher, str(folder / "worker.py"), *command, "--out", str(folder / "out")]
    found = subprocess.run(call, env={**os.environ, "PEAKS": str(folder)}, capture_output=True, text=True)
    if found.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{found.stderr}")
    return max(int((folder / str(rank)).read_text()) for rank in range(ranks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="English text, a MB or more")
    parser.add_argument("--settings", default="--depth 6 --batch-size 8 --context 128", help="of model and batch")
    parser.add_argument("--append", action="store_true", help="append the table to RESULTS.md")
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["LUCIDLM_CACHE"] = str(folder / "cache")
        data = folder / "data"
        call = [sys.executable, "-m", "lucidlm", "data", "prepare", str(options.text), "--vocab-size", "4096"]
        subprocess.run([*call, "--out", str(data)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        command = ["pretrain", "--data", str(data), *options.settings.split(), "--max-steps", str(STEPS)]
        for parallel in PARALLEL:
            for ranks in RANKS:
                whole = [*command, "--device", "cpu", "--parallel", parallel]
                found = plan([*whole, "--ranks", str(ranks)], anew=not rows)
                place = folder / f"{parallel}-{ranks}"
                place.mkdir()
                rows.append(Row(f"{ranks} ranks, {parallel}", found["memory_bytes"]["peak"], run(whole, ranks, place)))
                print(f"{rows[-1].name}: {rows[-1].error:+.1%}", file=sys.stderr)
    header = ["", "memory of a rank, predicted", "real, the most of all ranks", "error"]
    cells = [
        [row.name, *(f"{size / 2**20:,.0f} MiB" for size in (row.predicted, row.real)), f"{row.error:+.1%}"]
        for row in rows
    ]
    within = sum(abs(row.error) <= TARGET for row in rows)
    notes = [f"`{options.settings}`, {STEPS} steps; {within} of {len(rows)} within {TARGET:.0%}"]
    if options.append:
        record("Plans of several ranks beside the runs: memory of a rank", header, cells, notes)
        return
    for line in [header, *cells, notes]:
        print("  ".join(line))


if __name__ == "__main__":
    main()
