"""The processes of a run, each a rank, and what they tell each other.

`torchrun` starts them and says in the environment which is which. What ranks tell each other here are plain numbers and
small objects, over gloo, so that nothing of it waits for a GPU; gradients and shards go their own way. Everything that
depends on a clock or a signal is asked of one rank and told to all: ranks that decide differently wait for each other
for ever.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
from torch import distributed
from torch.distributed import PrefixStore, rendezvous  # pyright: ignore[reportPrivateImportUsage]

from lucidlm.core.devices import Compute
from lucidlm.core.errors import InputError, LucidError
from lucidlm.core.progress import console, log

T = TypeVar("T")
R = TypeVar("R")

LONGEST_WAIT = timedelta(hours=1)
"""How long a rank waits for the others: the first one writes models and reports alone."""


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is.

    Parameters
    ----------
    rank: from 0 to `count` - 1; the first one prints, and writes what is written once.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that prints and writes."""
        return self.rank == 0

    def gather(self, *numbers: float) -> list[list[float]]:
        """Return the `numbers` of every rank, by rank, in double precision."""
        if self.count == 1:
            return [[*numbers]]
        own = torch.tensor(numbers, dtype=torch.float64)
        found = [torch.empty_like(own) for _ in range(self.count)]
        distributed.all_gather(found, own)
        return [part.tolist() for part in found]

    def agreed(self, value: T) -> T:
        """Return the first rank's `value`, whatever this one's is."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def gather_objects(self, value: T) -> list[T]:
        """Return the `value` of every rank, by rank; for small plain objects."""
        if self.count == 1:
            return [value]
        found: list[T] = [value] * self.count
        distributed.all_gather_object(found, value)
        return found

    def map(self, function: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> list[R]:
        """Return what `function` makes of `items`, one result for each, every rank taking its share of them."""
        if self.count == 1:
            return list(function(items))
        own = items[self.rank :: self.count]
        found: list[R | None] = [None] * len(items)
        for rank, part in enumerate(self.gather_objects(list(function(own)) if own else [])):
            found[rank :: self.count] = part
        return found  # pyright: ignore[reportReturnType]

    def require_one_view(self, resume: bool, directory: Path) -> None:
        """Refuse to begin on some ranks and to go on from a checkpoint on others.

        Raises
        ------
        InputError: not all ranks see the checkpoints below `directory`.
        """
        if len({row[0] for row in self.gather(resume)}) > 1:
            raise InputError(
                "has checkpoints that not all ranks see",
                where=directory,
                fix="Put it on a disk that all machines share.",
            )

    def wait(self) -> None:
        """Wait until all ranks have come here."""
        self.gather(0.0)

    def bounds(self, rows: int) -> tuple[int, int]:
        """Return the first of this rank's `rows` of a batch and the one after its last; of few rows it may have none."""
        size, rest = divmod(rows, self.count)
        start = self.rank * size + min(self.rank, rest)
        return start, start + size + (self.rank < rest)

    def require_share(self, batch_size: int, examples: int, what: str) -> None:
        """Refuse a batch that ranks cannot share evenly, and data too few for them.

        Raises
        ------
        InputError: `count` does not divide `batch_size`, or there are fewer `examples` than ranks.
        """
        if batch_size % self.count:
            fits = batch_size - batch_size % self.count or self.count
            raise InputError(
                f"a batch of {batch_size:,} cannot be shared evenly by {self.count} ranks",
                where="--batch-size",
                fix=f"Pass a multiple of {self.count}, such as {fits}, or start a number of ranks that divides it.",
            )
        self.require_enough(examples, f"{what} to learn from")

    def require_enough(self, examples: int, what: str) -> None:
        """Refuse data too few for the ranks.

        Raises
        ------
        InputError: there are fewer `examples` than ranks.
        """
        if examples < self.count > 1:
            raise InputError(f"there are {self.count} ranks and {examples:,} {what}", fix="Start fewer ranks.")

    def require_same(self, compute: Compute) -> None:
        """Refuse ranks that would compute on different kinds of devices or in different number formats.

        Raises
        ------
        InputError: they would; it names each kind with a rank that has it.
        """
        if self.count == 1:
            return
        name = torch.cuda.get_device_name() if compute.device.type == "cuda" else compute.device.type
        found = self.gather_objects((compute.device.type, str(compute.dtype).removeprefix("torch."), name))
        if len({kind[:2] for kind in found}) > 1:
            seen = {kind: rank for rank, kind in reversed(list(enumerate(found)))}
            parts = (
                f"rank {rank} has {kind[2]} in {kind[1]}" for kind, rank in sorted(seen.items(), key=lambda x: x[1])
            )
            raise InputError(
                f"the devices of the ranks differ: {', '.join(parts)}",
                where="--device",
                fix="Use machines alike, or pass --device and --precision that all of them have.",
            )
        names = sorted({kind[2] for kind in found})
        log(f"{self.count} ranks on {', '.join(names)}" + ("; the slowest sets the pace" if len(names) > 1 else ""))


ALONE = Ranks()
"""A run in one process."""


def first_rank() -> bool:
    """Return whether this process is the only one of a run or the first."""
    return os.environ.get("RANK", "0") == "0" or os.environ.get("WORLD_SIZE", "1") == "1"


def restarted() -> bool:
    """Return whether torchrun started this process in place of one that failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def join(device: str) -> Ranks:
    """Find out which rank this process is, meet the others, and make all but the first one quiet.

    The group stays until Python ends: what a script does next is done by the same ranks.

    Parameters
    ----------
    device: as `choose_compute` takes it; on GPUs each rank gets the one of its number.

    Raises
    ------
    InputError: the environment says only in part who takes part, a rank has no GPU of its own, or PyTorch has no NCCL.
    LucidError: the others cannot be reached.
    """
    count = _number("WORLD_SIZE", 1)
    if count == 1:
        return ALONE
    rank, local = _number("RANK"), _number("LOCAL_RANK", 0)
    console.quiet = rank != 0
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        _take_gpu(device, local)
    if not distributed.is_initialized():
        try:
            _meet("cpu:gloo,cuda:nccl" if on_gpu else "gloo", rank, count)
        except (distributed.DistError, ValueError, RuntimeError) as error:
            raise LucidError(
                f"rank {rank} of {count} cannot meet the others ({' '.join(str(error).split())[:200]})",
                fix="Start all of them with torchrun, whose --rdzv-endpoint every machine reaches.",
            ) from error
    return Ranks(rank, count)


def _meet(backend: str, rank: int, count: int) -> None:
    """Form the group of all ranks.

    torchrun keeps its store when it starts ranks again, and in it the addresses of those that are gone: so each attempt has
    names of its own.
    """
    store, _, _ = next(rendezvous("env://"))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)
    store = PrefixStore(f"lucidlm/{attempt}/{count}", store)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=LONGEST_WAIT)
    atexit.register(leave_group)


def leave_group() -> None:
    """End this process's part in the group before Python ends.

    gloo's threads may still hold tensors, and a thread that gives one back to a Python that is gone aborts the process.
    """
    if distributed.is_initialized():
        distributed.destroy_process_group()


def end_without_leaving() -> None:
    """Let a process that has failed end without a word to the group, where that word would wait for all ranks (NCCL)."""
    if distributed.is_initialized() and "nccl" in distributed.get_backend_config():
        atexit.unregister(leave_group)


def _number(name: str, default: int | None = None) -> int:
    value = os.environ.get(name)
    if value is None and default is not None:
        return default
    try:
        return int(value or "")
    except ValueError:
        raise InputError(
            "is no number" if value else "is not set, though WORLD_SIZE says that there are several ranks",
            where=name,
            fix="Start the ranks with torchrun, which sets it.",
        ) from None


def _take_gpu(device: str, local: int) -> None:
    """Make the GPU of this rank's number the one that `cuda` means."""
    if ":" in device:
        raise InputError(
            "several ranks cannot share one GPU", where=f"--device {device}", fix="Pass cuda: each takes its own."
        )
    if not distributed.is_nccl_available():
        raise InputError(
            "this PyTorch has no NCCL, by which GPUs of several ranks talk to each other",
            where="--device",
            fix="Install PyTorch for Linux with CUDA, or pass --device cpu.",
        )
    if local >= (count := torch.cuda.device_count()):
        raise InputError(
            f"this machine has {count} GPUs, and a rank of number {local} of its own",
            where="--nproc-per-node",
            fix=f"Start {count} ranks here.",
        )
    torch.cuda.set_device(local)
