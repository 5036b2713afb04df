"""Checkpoints of a model in shards: every rank writes its own, beside the training, and any number of ranks reads them."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.api import CheckpointException

from lucidlm.core.errors import LucidError
from lucidlm.core.io import disk_errors, write_json
from lucidlm.core.progress import log
from lucidlm.distributed.ranks import Ranks
from lucidlm.distributed.shard_files import Template, write_shards
from lucidlm.train.checkpoints import STATE, begin, complete, places, take_tensors
from lucidlm.train.optim import Optimizers


class ShardedCheckpoints:
    """Writes one checkpoint at a time below `root`; while it is written, training goes on."""

    def __init__(self, root: Path, ranks: Ranks, keep: int, every: int | None = None) -> None:
        self.root, self.ranks, self.keep, self.every = root, ranks, keep, every
        group = distributed.new_group(backend="gloo")
        assert isinstance(group, distributed.ProcessGroup)
        self._group = group
        self._pending: tuple[Future[object], Path, Path] | None = None

    def save(self, step: int, weights: dict[str, Tensor], optimizer: dict[str, Any], state: dict[str, Any]) -> None:
        """Begin to write the checkpoint of `step`; see `save_checkpoint`. All ranks have to call it.

        Raises
        ------
        LucidError: the disk is full, or the checkpoint before this one could not be written.
        """
        self.finish()
        partial, final = places(self.root, step)
        tensors = dict(weights)
        plain = take_tensors(optimizer, "", tensors)
        if self.ranks.first:
            begin(partial, list(tensors.values()))
            with disk_errors(partial):
                write_json(partial / STATE, {**state, "step": step, "optimizer": plain})
        self.ranks.wait()
        self._pending = write_shards(partial, tensors, self._group), partial, final

    def finish(self, *, wait: bool = True) -> None:
        """Put the checkpoint that is being written in its place once all ranks have written it.

        Parameters
        ----------
        wait: until they have; or else leave it for later.

        Raises
        ------
        LucidError: it could not be written; those before it are untouched.
        """
        if self._pending is None or not (wait or self._pending[0].done()):
            return
        future, partial, final = self._pending
        self._pending = None
        try:
            future.result()
        except (CheckpointException, OSError) as error:
            line = " ".join(str(error).split())
            raise LucidError(f"the checkpoint could not be written ({line[:300]})", where=final) from error
        if self.ranks.first:  # its part ends when those of all have
            complete(partial, final, self.keep, self.every)
            log(f"checkpoint {final}")

    def template(self, model: nn.Module, optimizer: Optimizers) -> Template:
        """Return what the tensors of a checkpoint are read into: weights and averages into shards, all else whole."""
        weights = model.state_dict()
        owners = [[one for group in member.param_groups for one in group["params"]] for member in optimizer.members]

        def template(name: str, shape: torch.Size) -> Tensor | None:
            like = weights.get(name)
            if name.startswith("/members/"):
                _, _, member, _, index, *_ = name.split("/")
                like = owners[int(member)][int(index)]
            return like if like is not None and like.shape == shape else None

        return template
