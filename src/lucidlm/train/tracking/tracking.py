"""What is told of a run to others: its figures to trackers, its end to a webhook, and to whoever looks at its directory."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import SecretStr

from lucidlm.core.config import Config
from lucidlm.core.errors import InputError, LucidError
from lucidlm.core.flat import flattened
from lucidlm.core.io import write_json
from lucidlm.core.progress import log
from lucidlm.distributed.failure import speaks_for_all
from lucidlm.distributed.ranks import first_rank
from lucidlm.train.config import TrackerName
from lucidlm.train.metrics_log import METRICS, latest_figures
from lucidlm.train.tracking.opening import open_tracker, require_trackers
from lucidlm.train.tracking.tracker import RunEnd, Tracker
from lucidlm.train.tracking.webhook import post

ENDED = "ended.json"
"""Left by a run that was stopped or has failed, until it goes on; a finished one leaves a model."""


class Tracking:
    """A run as others are told of it, from before it opens its data until it has left its model.

    Of several ranks the first one tells; of a failure the first one to fail. What goes wrong with the telling is said once,
    and never stops the run.

    Raises
    ------
    InputError: a tracker cannot be opened, see `require_trackers`.
    """

    def __init__(self, directory: Path, trackers: Sequence[TrackerName], webhook: SecretStr | None) -> None:
        require_trackers(trackers)
        self._directory, self._webhook = directory, webhook
        self._names = tuple(dict.fromkeys(trackers)) if first_rank() else ()
        self._trackers: dict[TrackerName, Tracker] = {}
        self._settings: dict[str, Any] = {}
        self._state: RunEnd = "finished"
        self._evaluation: Mapping[str, float] = {}
        self._trains = False
        self._start = time.monotonic()

    def of(self, settings: Config) -> Self:
        """Say which settings the run has, now that they are complete."""
        self._settings = dict(flattened(settings.model_dump(mode="json")))
        return self

    def begin(self, resume_at: int | None) -> None:
        """Open the trackers: the first step comes next, or the one after `resume_at`."""
        self._trains = True
        if first_rank():
            (self._directory / ENDED).unlink(missing_ok=True)
        for name in self._names:
            with _Spared(name):
                self._trackers[name] = open_tracker(name, self._directory, self._settings, resume_at)

    def write(self, values: Mapping[str, Any]) -> None:
        """Pass on what was measured at `values["step"]`."""
        figures = {name: value for name, value in values.items() if name != "step"}
        self._each(lambda tracker: tracker.write(values["step"], figures))

    def finish(self, step: int, evaluation: Mapping[str, float], stopped_by: int | None) -> None:
        """Say that the run has come to its end, with the figures of its last evaluation, or was stopped by a signal."""
        if stopped_by is not None:
            self._state = "stopped"
            return
        self._evaluation = evaluation
        final = {f"final/{name}": value for name, value in evaluation.items()}
        self._each(lambda tracker: tracker.write(step, final))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._state = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
        with nullcontext() if error is None else _undisturbed():
            speaks = first_rank() if error is None else speaks_for_all()
            if speaks and self._trains and self._state != "finished":
                with _Spared(ENDED):
                    write_json(self._directory / ENDED, {"state": self._state, "error": str(error) if error else None})
            if speaks and self._webhook is not None:
                post(self._webhook, self._report(error))
            self._each(lambda tracker: tracker.end(self._state))

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            spared = _Spared(name)
            with spared:
                call(tracker)
            if spared.failed:
                del self._trackers[name]

    def _report(self, error: BaseException | None) -> dict[str, Any]:
        """Return what the webhook is told; texts of the data are no part of it."""
        known = {**latest_figures(self._directory / METRICS), **self._evaluation} if self._trains else {}
        figures = {name: value for name, value in known.items() if math.isfinite(value)}
        found: dict[str, Any] = {
            "run": self._directory.resolve().name,
            "state": self._state,
            "step": figures.get("step"),
            "loss": figures.get("train_loss"),
            "validation_loss": figures.get("validation_loss"),
            "seconds": round(time.monotonic() - self._start, 1),
        }
        if self._state == "failed" and error is not None:
            found["error"] = _said(error)
        return {"text": _in_words(found), **found}


def _in_words(found: Mapping[str, Any]) -> str:
    """Return a report as a sentence, which Slack and its like show."""
    place = "" if found["step"] is None else f" at step {found['step']:,}"
    losses = [name for name in ("loss", "validation_loss") if found[name] is not None]
    parts = [*(f"{name.replace('_', ' ')} {found[name]:.4f}" for name in losses), f"{found['seconds']:,.0f} s"]
    if "error" in found:
        parts.append(found["error"])
    return f"lucidlm: {found['run']} {found['state']}{place}: {', '.join(parts)}"


def _said(error: BaseException) -> str:
    """Return what may be said of an error elsewhere: those of other people's code, and those of input, may quote texts."""
    if isinstance(error, LucidError) and not isinstance(error, InputError):
        return str(error)
    return f"{type(error).__name__}; the run's own output says more"


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let SIGTERM pass: torchrun sends it to the others as soon as one of several ranks has failed."""
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)


class _Spared:
    """Within this context an error is said and goes no further."""

    def __init__(self, what: str) -> None:
        self._what, self.failed = what, False

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.failed = isinstance(error, Exception)
        if self.failed:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            log(f"{self._what} is left out from here on, the run goes on ({said[:300]})")
        return self.failed
