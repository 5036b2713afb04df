"""Checkpoints: everything a run needs to go on as if nothing had happened, written whole or not at all.

`checkpoints/step-NNNNNN/` holds the weights and the optimiser's state as safetensors and the rest as JSON; a manifest
with sizes and SHA-256 sums is written last and the directory is renamed into place after it. No pickles. A model in
shards is written in shards (`lucidlm.train.sharded_checkpoints`), in other files of the same tensors.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lucidlm.checkpoint.record import RECORD
from lucidlm.core.config import CONFIG
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
from lucidlm.train.spikes import SpikeDetector

if TYPE_CHECKING:
    from lucidlm.distributed.shard_files import Template

WEIGHTS, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"

MARGIN = 100
"""Steps before a spike at which the weights are taken to be sound; PaLM's was about this (Chowdhery et al. 2022)."""


@dataclass
class LoopState:
    """Where a run is."""

    step: int = 0
    tokens: int = 0
    wall: float = 0.0
    """Seconds since the run began, all included."""
    training: float = 0.0
    """Seconds of that spent on training steps."""
    start_up: float = 0.0
    """Seconds the first step took, compilation included; the schedule's clock starts after it."""
    evaluated: int = 0
    best: float | None = None
    """The best figure of any evaluation."""
    best_loss: float = 0.0
    """The validation loss beside it, which tells equal figures apart; 0 where none is measured."""
    best_step: int = 0
    """Where the weights are from that are kept."""
    stale: int = 0
    """Evaluations since the best one."""
    skipped: int = 0
    """Batches that were passed over, which is how far the next one's number is ahead of the step's."""
    roll_backs: list[dict[str, Any]] = field(default_factory=list)
    """From which spikes the run went back, and what it skipped; see `Loop._roll_back`."""
    spikes: SpikeDetector = field(default_factory=SpikeDetector)

    @classmethod
    def of(cls, saved: dict[str, Any]) -> LoopState:
        """Return the state of which `asdict` made what a checkpoint has."""
        return cls(**{**saved, "spikes": SpikeDetector(**saved.get("spikes", {}))})


def save_checkpoint(
    root: Path,
    step: int,
    weights: dict[str, Tensor],
    optimizer: dict[str, Any],
    state: dict[str, Any],
    keep: int,
    every: int | None = None,
) -> Path:
    """Write `root/step-NNNNNN` and remove all but the newest `keep` checkpoints.

    Parameters
    ----------
    weights: the model's state dict. optimizer: a nested state dict of tensors and plain values.
    state: plain values of the training loop.
    every: see `complete`.

    Raises
    ------
    LucidError: the disk is full; the checkpoints already there are untouched.
    """
    partial, final = places(root, step)
    tensors: dict[str, Tensor] = {}
    plain = take_tensors(optimizer, "", tensors)
    begin(partial, [*weights.values(), *tensors.values()])
    try:
        with disk_errors(final):
            for name, content in ((WEIGHTS, weights), (OPTIMIZER, tensors)):
                with atomic_path(partial / name) as path:
                    save_file({key: value.detach().cpu().contiguous() for key, value in content.items()}, path)
            write_json(partial / STATE, {**state, "step": step, "optimizer": plain})
        complete(partial, final, keep, every)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final


def places(root: Path, step: int) -> tuple[Path, Path]:
    """Return where the checkpoint of a step is written, and where it is once it is complete."""
    final = root / f"step-{step:06d}"
    return root / f".{final.name}.part", final


def begin(partial: Path, tensors: Sequence[Tensor]) -> None:
    """Make an empty directory for a checkpoint of `tensors`.

    Raises
    ------
    LucidError: there is no room for them beside the older checkpoints, which leave only once the new one is complete.
    """
    require_free_space(partial.parent, sum(tensor.numel() * tensor.element_size() for tensor in tensors) + 2**20)
    shutil.rmtree(partial, ignore_errors=True)
    with disk_errors(partial):
        partial.mkdir(parents=True)


def complete(partial: Path, final: Path, keep: int, every: int | None = None) -> None:
    """List the files of a checkpoint in its manifest, put it in its place, and remove all but the newest `keep`.

    Parameters
    ----------
    every: the steps between checkpoints, where that is set: one in between, which a signal asked for, then takes no other's
        place and goes with the next one, so that an interruption does not decide what there is to go back to.
    """
    with disk_errors(final):
        write_manifest(partial, sorted(path.name for path in partial.iterdir()), step=_step(final))
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
    *older, newest = list_checkpoints(final.parent)
    kept = [*_regular([*older, newest], every)[-keep:], newest]
    for path in older:
        if path not in kept:
            shutil.rmtree(path)


def list_checkpoints(root: Path) -> list[Path]:
    """Return the complete checkpoints below `root`, oldest first."""
    complete = [
        path.parent for path in root.glob("step-*/manifest.json") if re.fullmatch(r"step-\d+", path.parent.name)
    ]
    return sorted(complete, key=_step)


def way_back(root: Path, step: int, every: int | None = None) -> Path | None:
    """Return the checkpoint to go back to from what went wrong at `step`, or None if there is none.

    It is the newest one that is old enough to be sound (`MARGIN`), or else the oldest; `every`: see `complete`.
    """
    found = _regular(list_checkpoints(root), every)
    return next((path for path in reversed(found) if _step(path) <= step - MARGIN), found[0] if found else None)


def forget_after(checkpoint: Path) -> None:
    """Remove the checkpoints that are newer than this one: the run goes another way from here."""
    for path in list_checkpoints(checkpoint.parent):
        if _step(path) > _step(checkpoint):
            shutil.rmtree(path)


def _regular(checkpoints: list[Path], every: int | None) -> list[Path]:
    return [path for path in checkpoints if every is None or _step(path) % every == 0]


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))  # names sort wrongly past a million steps


def load_checkpoint(
    path: Path, template: Template | None = None
) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Return weights, optimiser state and loop state of a checkpoint, after checking every byte of it.

    Whether one process wrote it or several ranks in shards, it can be read whole, or, by a `template`, in other shards.

    Raises
    ------
    InputError: a file is missing, truncated or altered; the message names it and what to fall back on.
    """
    try:
        verify_manifest(path)
        state = read_json(path / STATE)
        if template is None and (path / WEIGHTS).exists():
            tensors = {**load_file(path / WEIGHTS), **load_file(path / OPTIMIZER)}
        else:
            # Slow to import.
            from lucidlm.distributed.shard_files import read_shards

            tensors = read_shards(path, template or (lambda name, shape: None))
        optimizer = _put_tensors(state.pop("optimizer"), tensors)  # takes its tensors out
        return tensors, optimizer, state
    except InputError as error:
        older = [other.name for other in list_checkpoints(path.parent) if _step(other) < _step(path)]
        fallback = (
            f"Remove {path} to go on from {older[-1]}" if older else f"Remove {path.parent.parent} to start again"
        )
        raise InputError(error.what, where=error.where, fix=f"{fallback}, or restore the file.") from None


def require_fit(found: dict[str, Tensor], wanted: dict[str, Tensor], path: Path) -> None:
    """Refuse the weights of a checkpoint that are another model's.

    Raises
    ------
    InputError: names or shapes differ; one of them is named.
    """
    for name in sorted(found.keys() | wanted.keys()):
        shapes = [tuple(weights[name].shape) if name in weights else None for weights in (found, wanted)]
        if shapes[0] != shapes[1]:
            there, here = ("no such weight" if shape is None else f"shape {shape}" for shape in shapes)
            raise InputError(
                f"is of another model: of {name} it has {there}, this run's model {here}",
                where=path,
                fix=f"Go on with the {CONFIG} that it was made with, or start again with another --out.",
            )


def take_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Move the tensors in nested `value` to `tensors`; return the rest with their names in their place."""
    if isinstance(value, Tensor):
        # Copied where two entries share memory, which safetensors does not store.
        tensors[name] = value.detach().clone()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, take_tensors(item, f"{name}/{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [take_tensors(item, f"{name}/{index}", tensors) for index, item in enumerate(value)]}
    return {"value": value}


def _put_tensors(value: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    if "tensor" in value:
        return tensors.pop(value["tensor"])
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
