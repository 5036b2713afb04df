"""Checkpoints: everything a run needs to go on as if nothing had happened, written whole or not at all.

`checkpoints/step-NNNNNN/` holds the weights and the optimiser's state as safetensors and the rest as JSON; a manifest
with sizes and SHA-256 sums is written last and the directory is renamed into place after it. No pickles.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lucidlm.checkpoint.record import RECORD
from lucidlm.core.errors import InputError
from lucidlm.core.io import (
    atomic_path,
    disk_errors,
    read_json,
    require_free_space,
    require_vacant,
    verify_manifest,
    write_json,
    write_manifest,
)
from lucidlm.distributed.ranks import restarted

WEIGHTS, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"


def save_checkpoint(
    root: Path, step: int, weights: dict[str, Tensor], optimizer: dict[str, Any], state: dict[str, Any], keep: int
) -> Path:
    """Write `root/step-NNNNNN` and remove all but the newest `keep` checkpoints.

    Parameters
    ----------
    weights: the model's state dict. optimizer: a nested state dict of tensors and plain values.
    state: plain values of the training loop.

    Raises
    ------
    LucidError: the disk is full; the checkpoints already there are untouched.
    """
    final = root / f"step-{step:06d}"
    partial = root / f".{final.name}.part"
    tensors: dict[str, Tensor] = {}
    plain = _take_tensors(optimizer, "", tensors)
    # Twice the size: the older checkpoint leaves only once the new one is complete.
    require_free_space(root, sum(t.nbytes for t in (*weights.values(), *tensors.values())) + 2**20)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with disk_errors(final):
            partial.mkdir(parents=True)
            for name, content in ((WEIGHTS, weights), (OPTIMIZER, tensors)):
                with atomic_path(partial / name) as path:
                    save_file({key: value.detach().cpu().contiguous() for key, value in content.items()}, path)
            write_json(partial / STATE, {**state, "step": step, "optimizer": plain})
            write_manifest(partial, (WEIGHTS, OPTIMIZER, STATE), step=step)
            shutil.rmtree(final, ignore_errors=True)
            os.replace(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for old in list_checkpoints(root)[:-keep]:
        shutil.rmtree(old)
    return final


def list_checkpoints(root: Path) -> list[Path]:
    """Return the complete checkpoints below `root`, oldest first."""
    complete = [
        path.parent for path in root.glob("step-*/manifest.json") if re.fullmatch(r"step-\d+", path.parent.name)
    ]
    return sorted(complete, key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))  # names sort wrongly past a million steps


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Return weights, optimiser state and loop state of a checkpoint, after checking every byte of it.

    Raises
    ------
    InputError: a file is missing, truncated or altered; the message names it and what to fall back on.
    """
    try:
        verify_manifest(path)
        state = read_json(path / STATE)
        tensors = load_file(path / OPTIMIZER)
        return load_file(path / WEIGHTS), _put_tensors(state.pop("optimizer"), tensors), state
    except InputError as error:
        older = [other.name for other in list_checkpoints(path.parent) if _step(other) < _step(path)]
        fallback = (
            f"Remove {path} to go on from {older[-1]}" if older else f"Remove {path.parent.parent} to start again"
        )
        raise InputError(error.what, where=error.where, fix=f"{fallback}, or restore the file.") from None


def _take_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Move the tensors in nested `value` to `tensors`; return the rest with their names in their place."""
    if isinstance(value, Tensor):
        # Copied where two entries share memory, which safetensors does not store.
        tensors[name] = value.detach().clone()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _take_tensors(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [_take_tensors(item, f"{name}/{index}", tensors) for index, item in enumerate(value)]}
    return {"value": value}


def _put_tensors(value: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "dict" in value:
        return {key: _put_tensors(item, tensors) for key, item in value["dict"]}
    if "list" in value:
        return [_put_tensors(item, tensors) for item in value["list"]]
    return value["value"]


def snapshot(module: torch.nn.Module) -> dict[str, Tensor]:
    """Return a copy of the weights on the CPU."""
    return {name: value.detach().to("cpu", copy=True) for name, value in module.state_dict().items()}


def goes_on(directory: Path, asked: bool) -> bool:
    """Return whether a run is to go on from a checkpoint: it is asked to, or torchrun restarts it and there is one."""
    return asked or (restarted() and bool(list_checkpoints(directory / "checkpoints")))


def start_in(directory: Path) -> None:
    """Refuse a directory that holds something else; what a run left that torchrun restarts from the beginning goes.

    Raises
    ------
    InputError: `directory` holds something else.
    """
    if restarted() and not (directory / RECORD).exists():
        resumable(directory)
    require_vacant(directory)


def resumable(directory: Path) -> bool:
    """Return whether a training run left a checkpoint in `directory`; one that left none is cleared away."""
    if list_checkpoints(directory / "checkpoints"):
        return True
    shutil.rmtree(directory, ignore_errors=True)
    return False
