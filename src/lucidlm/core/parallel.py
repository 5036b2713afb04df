"""Work shared among processes, its results in the order of the work: they do not depend on how many processes there are.

The processes are loky's. Those of `multiprocessing` run the caller's script once more where they are spawned, so that a
script without a guard would prepare its data again and again, and where they are forked they inherit locks that threads of
PyTorch and of tokenizers hold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import chain, islice
from typing import Any, TypeVar

from lucidlm.core.errors import LucidError

T = TypeVar("T")
R = TypeVar("R")

FEW = 8
"""Items that are done sooner than a process starts: where there are no more, none is started."""
AHEAD = 2
"""Items in flight for each process, which bounds the memory: one that it works on, and the next."""


def map_in_order(function: Callable[[T], R], items: Iterable[T], processes: int) -> Generator[R, None, None]:
    """Yield `function(item)` for each of the items, in their order, worked out by as many processes as are given.

    Few items are done here. The processes end when the iteration does, also by an error or Ctrl-C; close the iterator
    (`contextlib.closing`) where it may be left early.

    Parameters
    ----------
    function: something that can be pickled, as are items and results; it is sent once to each process.

    Raises
    ------
    LucidError: a process ended by itself, for want of memory perhaps.
    Exception: what `function` raises, its cause a note of where in the other process.
    """
    items = iter(items)
    first = list(islice(items, FEW + 1))
    if processes == 1 or len(first) <= FEW:
        yield from map(function, chain(first, items))
        return
    # Slow to import, and seldom needed.
    from loky.process_executor import BrokenProcessPool, ProcessPoolExecutor

    executor = ProcessPoolExecutor(processes, initializer=_keep, initargs=(function,))
    pending = deque()
    try:
        for item in chain(first, items):
            if len(pending) == AHEAD * processes:
                yield pending.popleft().result()
            pending.append(executor.submit(_call, item))
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        what = "a process that shared the work ended by itself"
        fix = "If no message of its own is above, memory was short: free some, then run it again."
        raise LucidError(what, fix=fix) from error
    finally:
        executor.shutdown(kill_workers=True)


_kept: list[Callable[[Any], Any]] = []
"""In the other processes: the function that their items are for, which may be too large to come with each of them."""


def _keep(function: Callable[[Any], Any]) -> None:
    _kept[:] = [function]


def _call(item: Any) -> Any:
    return _kept[0](item)


def in_chunks(items: Iterable[T], size: Callable[[T], int], least: int) -> Iterator[list[T]]:
    """Yield the items in lists that are each ended by the item with which their sizes reach `least`."""
    chunk: list[T] = []
    total = 0
    for item in items:
        chunk.append(item)
        total += size(item)
        if total >= least:
            yield chunk
            chunk, total = [], 0
    if chunk:
        yield chunk
