"""Commands on several ranks, as tests start them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WORKER = Path(__file__).with_name("ranks_worker.py")


@dataclass
class Launch:
    """What a launch of commands on a number of ranks left, and what their webhook was told."""

    root: Path
    code: int
    output: str
    errors: str
    told: list[dict[str, Any]] = field(default_factory=list)

    def rows(self, run: str, figure: str) -> Tensor:
        lines = (self.root / run / "metrics.jsonl").read_text().splitlines()
        found = [(row["step"], row[figure]) for row in map(json.loads, lines) if figure in row]
        return torch.tensor(found, dtype=torch.float64)

    def gradients(self, run: str) -> Tensor:
        return torch.load(self.root / run / "gradients.pt")


def launch(
    root: Path, ranks: int, commands: Sequence[Sequence[object]], restarts: int = 0, **environment: str
) -> Launch:
    """Run commands one after the other, on several ranks by torchrun, which may restart them so often."""
    words = [str(word) for index, command in enumerate(commands) for word in (*(["then"] * (index > 0)), *command)]
    torchrun = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(ranks),
        "--max-restarts",
        str(restarts),
    ]
    run = subprocess.run(
        [sys.executable, *(torchrun if ranks > 1 else []), WORKER, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
    )
    return Launch(root, run.returncode, run.stdout, run.stderr)
