"""Keep what recipes reached: each eval.json and curve.json below a folder, with its model's record, in recipes/results.

python benchmarks/keep_results.py runs
lucidlm results recipes/results --out docs/results.md

The beginnings of examples that are also in training data are left out: the data are others', and where they stand is kept.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from lucidlm.checkpoint.record import RECORD
from lucidlm.core.io import read_json, write_json, write_text
from lucidlm.evaluate.record import EVALUATION, read_evaluation
from lucidlm.train.label_curve.record import CURVE, read_curve

KEPT = Path(__file__).parent.parent / "recipes" / "results"


def keep(runs: Path) -> None:
    """Copy the results below `runs`, by the folders they stand in; what is damaged is refused."""
    for path in sorted(runs.rglob(EVALUATION)):
        evaluation = read_evaluation(path)
        folder = KEPT / path.parent.relative_to(runs)
        for record in (path.with_name(RECORD), Path(str(evaluation.settings["model"]), RECORD)):
            if record.exists():
                read_json(record)
                write_text(folder / RECORD, record.read_text("utf-8"))
                break
        write_json(folder / EVALUATION, without_texts(read_json(path)))
        print(folder)
    for path in sorted(runs.rglob(CURVE)):
        read_curve(path)
        folder = KEPT / path.parent.relative_to(runs)
        write_text(folder / CURVE, path.read_text("utf-8"))
        print(folder)


def without_texts(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Return an eval.json without the texts of the examples that it names."""
    for leak in evaluation["leakage"]:
        leak["named"] = [{**example, "text": ""} for example in leak["named"]]
    return evaluation


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
