"""The engine in a thread of its own, which others give sequences to and hear pieces of text from."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from lucidlm.inference.engine.engine import Engine
from lucidlm.inference.sequence import Reason, SequenceState

STUCK = 60.0
"""Seconds that a step may take; a prompt's part and a token of each sequence take a few at most."""


@dataclass(frozen=True, slots=True)
class News:
    """What became of a sequence in a step.

    Parameters
    ----------
    piece: text that is certain by now, often empty.
    tokens: how many tokens of the sequence are released by now: so much of it may be read from another thread.
    reason: why it has ended; None: more follows, unless there is a `failure`.
    failure: why nothing more comes, though the sequence had not ended; None: all is well.
    """

    piece: str = ""
    tokens: int = 0
    reason: Reason | None = None
    failure: Exception | None = None

    @property
    def last(self) -> bool:
        """Whether nothing follows."""
        return self.failure is not None or self.reason is not None


Listener = Callable[[News], None]
"""Called from the engine's thread, so it has to be quick; one that fails is not called again."""


class EngineLoop:
    """A thread that lets `engine` step as long as there is something to do.

    A step that fails ends the sequences that were in it, whose listeners hear why; the thread goes on with those that
    waited.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._orders: SimpleQueue[tuple[str, SequenceState | None, Listener | None]] = SimpleQueue()
        self._listeners: dict[SequenceState, Listener] = {}
        self._began: float | None = None  # when the step began that is running
        self._thread = threading.Thread(target=self._run, name="lucidlm-engine", daemon=True)
        self._thread.start()

    @property
    def healthy(self) -> bool:
        """Whether the thread lives, and is not held up in a step."""
        began = self._began
        return self._thread.is_alive() and (began is None or time.monotonic() - began < STUCK)

    def submit(self, row: SequenceState, listener: Listener) -> None:
        """Let a sequence be written; its listener hears of each step that it gets a token in."""
        self._orders.put(("add", row, listener))

    def cancel(self, row: SequenceState) -> None:
        """Write no more of a sequence, from the next step on; its listener hears of it if it had not ended."""
        self._orders.put(("cancel", row, None))

    def stop(self) -> None:
        """End the thread after the step that is running; what was being written stays as it is."""
        self._orders.put(("stop", None, None))
        self._thread.join()

    def _run(self) -> None:
        while self._obey():
            self._began = time.monotonic()
            try:
                for row in self._engine.step():
                    self._tell(row, News(row.take(), row.released_tokens, row.reason, row.failure))
            except Exception as error:
                self._engine.drop_running()
                for row in [row for row in self._listeners if row not in self._engine]:
                    self._tell(row, News(failure=error))
            self._began = None

    def _obey(self) -> bool:
        """Do what was asked for since the last step, and wait for it while there is nothing to do; False: end."""
        while True:
            idle = not (self._engine.running or self._engine.waiting)
            try:
                order, row, listener = self._orders.get(block=idle)
            except Empty:
                return True
            if row is None:
                return False
            if order == "cancel":
                self._engine.cancel(row)
                self._tell(row, News(tokens=row.released_tokens, reason=row.reason))
            elif listener is not None:
                self._listeners[row] = listener
                self._engine.add(row)
                if row.reason is not None:  # there is never room for it
                    self._tell(row, News(reason=row.reason, failure=row.failure))

    def _tell(self, row: SequenceState, news: News) -> None:
        listener = self._listeners.get(row)
        if listener is None:
            return
        if news.last:
            del self._listeners[row]
        try:
            listener(news)
        except Exception:  # nobody hears it any more
            self._listeners.pop(row, None)
            self._engine.cancel(row)
