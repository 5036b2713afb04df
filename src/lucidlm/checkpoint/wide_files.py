"""The files of the counted n-grams beside a classifier's Transformer.

`wide.json` names the n-grams and says how much either branch counts; `wide.safetensors` has the weights. They stand beside
`model.safetensors`, which stays what transformers opens: the Transformer alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from lucidlm.core.errors import InputError
from lucidlm.core.io import atomic_path, read_json, write_json
from lucidlm.model.ngrams import ORDERS, NgramClassifier, NgramTable, WideBranch

WIDE, WIDE_WEIGHTS = "wide.json", "wide.safetensors"


def write_wide_branch(branch: WideBranch, directory: Path) -> list[str]:
    """Write the branch to `directory`; return the names of its files.

    Raises
    ------
    LucidError: the disk is full.
    """
    tensors = {"bias": branch.ngrams.bias}
    for table in branch.ngrams.tables:
        tensors |= {f"{table.kind}.ratio": table.ratio, f"{table.kind}.weight": table.weight}
    with atomic_path(directory / WIDE_WEIGHTS) as temporary:
        save_file(tensors, temporary)
    fields = {
        "deep_scale": branch.deep_scale,
        "wide_scale": branch.wide_scale,
        "ngrams": {table.kind: list(table.ngrams) for table in branch.ngrams.tables},
    }
    write_json(directory / WIDE, fields)
    return [WIDE, WIDE_WEIGHTS]


def read_wide_branch(directory: Path, labels: int) -> WideBranch:
    """Read the branch that `write_wide_branch` left, for a classifier of so many `labels`.

    Raises
    ------
    InputError: a file is missing or damaged, or the two do not belong together.
    """
    fields = read_json(directory / WIDE)
    try:
        tensors = load_file(directory / WIDE_WEIGHTS)
        tables = tuple(
            NgramTable(kind, tuple(map(str, names)), tensors[f"{kind}.ratio"], tensors[f"{kind}.weight"])
            for kind, names in fields["ngrams"].items()
        )
        if not ORDERS.keys() >= fields["ngrams"].keys():
            raise ValueError("n-grams of an unknown kind")
        branch = WideBranch(
            NgramClassifier(tables, tensors["bias"]), float(fields["deep_scale"]), float(fields["wide_scale"])
        )
    except (AttributeError, KeyError, TypeError, ValueError, OSError, SafetensorError):
        raise InputError("is no list of n-grams with weights", where=directory / WIDE, fix="Train again.") from None
    classes = 1 if labels == 2 else labels
    fits = branch.ngrams.bias.shape == (classes,) and all(
        part.shape == (len(table.ngrams), classes) and np.isfinite(part).all()
        for table in tables
        for part in (table.ratio, table.weight)
    )
    if not fits:
        count = sum(len(table.ngrams) for table in tables)
        raise InputError(
            f"weighs {count:,} n-grams for {labels} labels, and {WIDE_WEIGHTS} holds another table",
            where=directory / WIDE,
            fix="Train again.",
        )
    return branch
