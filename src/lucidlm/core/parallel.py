"""Work shared among processes, its results in the order of the work: they do not depend on how many processes there are.

The processes are started by a command of their own. Those of `multiprocessing` run the caller's script once more where
they are spawned, so that a script without a guard would prepare its data again and again, and where they are forked they
inherit locks that threads of PyTorch and of tokenizers hold.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain, islice
from queue import SimpleQueue
from typing import IO, Any, TypeVar, cast

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
    (`contextlib.closing`) where it may be left early. They end by themselves if this process is killed.

    Parameters
    ----------
    function: something that can be pickled and imported, as are items and results; it is sent once to each process.

    Raises
    ------
    LucidError: a process ended by itself, for want of memory perhaps.
    Exception: what `function` raises, with a note of where in the other process.
    """
    items = iter(items)
    first = list(islice(items, FEW + 1))
    if processes == 1 or len(first) <= FEW:
        yield from map(function, chain(first, items))
        return
    with _started(function, processes) as submit:
        pending: deque[Future[R]] = deque()
        for item in chain(first, items):
            if len(pending) == AHEAD * processes:
                yield pending.popleft().result()
            pending.append(submit(item))
        while pending:
            yield pending.popleft().result()


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


@contextmanager
def _started(function: Callable[[T], R], count: int) -> Iterator[Callable[[T], Future[R]]]:
    """Start processes and yield what hands one of them an item; a thread for each waits for its answers."""
    command = [sys.executable, "-P", "-c", f"from {__name__} import serve; serve()"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    sent = pickle.dumps(function)
    started: list[subprocess.Popen[bytes]] = []
    idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
    with ThreadPoolExecutor(count, thread_name_prefix="process") as threads:
        try:
            for _ in range(count):
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=environment,
                    # Ctrl-C is for this process, which ends the others.
                    start_new_session=True,
                    creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
                )
                started.append(process)
            for process in started:
                with suppress(OSError):  # of one that has ended already, as the first item will tell
                    cast(IO[bytes], process.stdin).write(sent)
                idle.put(process)
            yield lambda item: threads.submit(_answer, idle, item)
        finally:
            for process in started:
                process.kill()
            threads.shutdown(cancel_futures=True)
            for process in started:
                process.wait()
                with suppress(OSError):  # what was not sent yet
                    cast(IO[bytes], process.stdin).close()
                cast(IO[bytes], process.stdout).close()


def _answer(idle: SimpleQueue[subprocess.Popen[bytes]], item: Any) -> Any:
    """Have an idle process work out the answer to an item."""
    process = idle.get()
    to, answers = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
    try:
        pickle.dump(item, to, pickle.HIGHEST_PROTOCOL)
        to.flush()
        error, result = pickle.load(answers)
    except (EOFError, OSError, pickle.UnpicklingError) as broken:
        what = f"a process that shared the work ended by itself (exit code {process.wait()})"
        fix = "If no message of its own is above, memory was short: free some, then run it again."
        raise LucidError(what, fix=fix) from broken
    finally:
        idle.put(process)
    if error is not None:
        raise error
    return result


def serve() -> None:
    """Be one of the processes: read a function, then items, from standard input; write the answers to standard output."""
    items, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anything prints here is no answer
    with suppress(EOFError, BrokenPipeError):
        function = pickle.load(items)
        while True:
            item = pickle.load(items)
            try:
                answer = None, function(item)
            except Exception as error:
                error.add_note(f"In the other process:\n{traceback.format_exc()}")
                answer = error, None
            pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
