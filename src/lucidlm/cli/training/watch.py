"""`lucidlm watch`: how far a run is."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lucidlm.report.live.following import FollowedFolder, FollowedRun

SECONDS_BETWEEN_LINES = 15.0
"""Of one run, where there is no terminal; an evaluation and the end are told at once."""


def register(app: typer.Typer) -> None:
    app.command()(watch)


def watch(
    run: Annotated[Path, typer.Argument(help="A local directory: of a run, or a folder of several.")],
    once: Annotated[bool, typer.Option("--once", help="Show how it stands and end.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
) -> None:
    """Watch a run while it trains: loss, rate, time left, memory, samples. Or look at one that has ended.

    It ends with the run; of a folder with Ctrl-C. Exit code: 0 if the run has finished, 1 if it was stopped or has failed.

    Examples:

      lucidlm watch model
      lucidlm watch runs
      lucidlm watch model --once
    """
    from rich.console import Console
    from rich.live import Live

    from lucidlm.core.errors import InputError
    from lucidlm.report.live.drawing import draw
    from lucidlm.report.live.following import FollowedFolder

    console, folder = Console(highlight=False), FollowedFolder(run)
    folder.read()
    if once:
        if not folder.runs:
            raise InputError("holds no run that has left a step", where=run, fix="Pass what --out named.")
        if console.is_terminal:
            console.print(draw(folder, console))
        else:
            _Lines().tell(folder)
        return
    live = Live(draw(folder, console), console=console, auto_refresh=False) if console.is_terminal else None
    lines = _Lines()
    try:
        with live or nullcontext():
            while True:
                if live is None:
                    lines.tell(folder)
                else:
                    live.update(draw(folder, console), refresh=True)
                if folder.ended:
                    break
                sleep(interval)
                folder.read()
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if any(one.state != "finished" for one in folder.runs):
        raise typer.Exit(1)


class _Lines:
    """Prints a line of a run when there is something to tell."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[object, float]] = {}
        self._waiting = False

    def tell(self, folder: FollowedFolder) -> None:
        """Print what is new since the last time."""
        from lucidlm.report.live.drawing import line, shown, waiting

        if not folder.runs and not self._waiting:
            self._waiting = True
            print(waiting(folder), flush=True)
        for run in folder.runs:
            if self._is_new(run):
                print(line(run), flush=True)
                if run.state == "failed" and run.error:
                    print(shown(run.error), flush=True)

    def _is_new(self, run: FollowedRun) -> bool:
        """Return whether a run has changed its state or was evaluated, or has made steps for a while."""
        now, what = monotonic(), (run.state, run.evaluation.get("step"), run.damaged)
        before, when = self._told.get(run.name, (None, 0.0))
        if what == before and (now - when < SECONDS_BETWEEN_LINES or run.state != "running"):
            return False
        self._told[run.name] = what, now
        return True
