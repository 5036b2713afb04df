"""Ctrl-C and SIGTERM as a request that the training loop meets at its next step, not as an axe."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from lucidlm.core.progress import log


class StopRequest:
    """While this context is entered, SIGINT and SIGTERM only set `signal`; a second SIGINT interrupts at once."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __enter__(self) -> StopRequest:
        # Only the main thread may set handlers; a run in another thread is stopped by whoever runs that thread.
        self._previous = {}
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        log(f"{signal.Signals(number).name} received: saving a checkpoint after this step …")
