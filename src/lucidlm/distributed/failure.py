"""When a rank fails, all stop, and one of them says why.

Stopping them is torchrun's part: it ends the other ranks as soon as one has ended, and starts all again if it is allowed
to. Here is what makes one message of it, where each rank would have one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache

import torch
from torch import distributed
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from lucidlm.core.errors import LucidError
from lucidlm.distributed.ranks import Ranks, end_without_leaving

LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "gloo", "nccl", "socket timeout")
"""What PyTorch's messages have in them when another process is gone."""

PATIENCE = timedelta(seconds=10)
"""How long to look for the store in which failures are counted."""


@contextmanager
def explained(ranks: Ranks) -> Iterator[None]:
    """Turn what happens to one of several ranks into an error that says which one, and what to do.

    Raises
    ------
    LucidError: this rank ran out of memory, or has lost another one.
    """
    done = False
    try:
        yield
        done = True
    except (torch.OutOfMemoryError, MemoryError) as error:
        if ranks.count == 1:
            raise
        raise _out_of_memory(ranks) from error
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if ranks.count == 1:
            raise
        if "can't allocate memory" in text:
            raise _out_of_memory(ranks) from error
        if isinstance(error, distributed.DistError) or any(part in text.lower() for part in LOST):
            raise _lost(ranks, text) from error
        raise
    finally:
        if not done:
            end_without_leaving()


def _out_of_memory(ranks: Ranks) -> LucidError:
    return LucidError(
        f"rank {ranks.rank} of {ranks.count} is out of memory; all ranks stop",
        fix="Pass a smaller --micro-batch or --batch-size, or shard the model with --parallel fsdp.",
    )


def _lost(ranks: Ranks, text: str) -> LucidError:
    return LucidError(
        f"rank {ranks.rank} of {ranks.count} has lost another rank, which was killed or cannot be reached; all ranks stop "
        f"({re.sub(r'^.*?[.]cc:[0-9]+[]] ', '', text)[:100]})",
        fix="torchrun says below which one; with --max-restarts it starts them again from the last checkpoint.",
    )


@cache
def speaks_for_all() -> bool:
    """Return whether this process is the one of several ranks that says why they stop: the first one to fail.

    They count in the store by which torchrun lets them find each other. Where it cannot be reached, each speaks. Asked
    again, a process hears the same.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return True
    try:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(host, port, is_master=False, timeout=PATIENCE, wait_for_workers=False)
        return store.add(f"lucidlm/failures/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", 1) == 1
    except (KeyError, ValueError, RuntimeError):
        return True
