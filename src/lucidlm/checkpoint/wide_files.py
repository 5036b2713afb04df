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
from lucidlm.model.ngrams import NgramClassifier, WideBranch

WIDE, WIDE_WEIGHTS = "wide.json", "wide.safetensors"


def write_wide_branch(branch: WideBranch, directory: Path) -> list[str]:
    """Write the branch to `directory`; return the names of its files.

    Raises
    ------
    LucidError: the disk is full.
    """
    ngrams = branch.ngrams
    with atomic_path(directory / WIDE_WEIGHTS) as temporary:
        save_file({"weight": ngrams.weight, "bias": ngrams.bias}, temporary)
    fields = {
        "deep_scale": branch.deep_scale,
        "wide_scale": branch.wide_scale,
        "by_character": ngrams.by_character,
        "ngrams": list(ngrams.ngrams),
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
        ngrams = NgramClassifier(
            bool(fields["by_character"]), tuple(map(str, fields["ngrams"])), tensors["weight"], tensors["bias"]
        )
        branch = WideBranch(ngrams, float(fields["deep_scale"]), float(fields["wide_scale"]))
    except (KeyError, TypeError, ValueError, OSError, SafetensorError):
        raise InputError("is no list of n-grams with weights", where=directory / WIDE, fix="Train again.") from None
    shapes = (ngrams.weight.shape, ngrams.bias.shape)
    if shapes != ((len(ngrams.ngrams), labels), (labels,)) or not np.isfinite(ngrams.weight).all():
        raise InputError(
            f"weighs {len(ngrams.ngrams):,} n-grams for {labels} labels, and {WIDE_WEIGHTS} holds another table",
            where=directory / WIDE,
            fix="Train again.",
        )
    return branch
