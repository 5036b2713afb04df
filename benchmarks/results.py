"""Where benchmark results go: standard output, and a dated section of RESULTS.md with the machine they were taken on."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from lucidlm.core.devices import describe_machine
from lucidlm.version import __version__

RESULTS = Path(__file__).with_name("RESULTS.md")


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """Return the median and, where there are several values, the least and the greatest."""
    middle = format(statistics.median(values), form)
    return middle if len(values) == 1 else f"{middle} ({format(min(values), form)} to {format(max(values), form)})"


def recorded(title: str) -> list[list[str]]:
    """Return the rows of the table that was last recorded under `title`, without its header; none: there is none yet."""
    sections = RESULTS.read_text(encoding="utf-8").split("\n## ")
    newest = next((one for one in reversed(sections) if one.startswith(f"{title}\n")), "")
    table = [line.strip("| ").split(" | ") for line in newest.splitlines() if line.startswith("| ")]
    return table[1:]


def record(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
    """Print a table, and append it to RESULTS.md under `title`, the date, the machine and the command."""
    table = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *(f"| {' | '.join(row)} |" for row in rows)]
    machine = describe_machine()
    where = (
        f"{datetime.now(UTC):%Y-%m-%d}, {machine.cpu}, {machine.cores} cores ({torch.get_num_threads()} threads), "
        f"{machine.memory_gb} GB, Python {machine.python}, torch {machine.torch}, lucidlm {__version__}"
    )
    command = f"`python {' '.join([f'benchmarks/{Path(sys.argv[0]).name}', *sys.argv[1:]])}`"
    text = "\n".join([f"## {title}", "", where, "", command, "", *table, "", *(f"- {note}" for note in notes)]) + "\n"
    print(text)
    with RESULTS.open("a", encoding="utf-8") as file:
        if not file.tell():
            file.write("# Results\n\nEach section is one run of a benchmark, as it printed it.\n")
        file.write(f"\n{text}")
