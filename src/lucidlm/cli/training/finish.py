"""What every run ends with: its report, and a last word on where things are."""

from __future__ import annotations

import signal
from pathlib import Path

import typer

from lucidlm.core.progress import log
from lucidlm.distributed.ranks import first_rank
from lucidlm.report.files import REPORT
from lucidlm.report.run import report_run
from lucidlm.train.loop import Outcome


def finish(outcome: Outcome, directory: Path) -> None:
    """Write the report of a training run; exit as a program stopped by a signal does if one stopped it."""
    if first_rank():
        report_run([directory], directory / REPORT)
    if outcome.stopped_by is not None:
        name = signal.Signals(outcome.stopped_by).name
        log(f"stopped by {name} at step {outcome.state.step:,}; go on with the same command and --resume")
        raise typer.Exit(128 + outcome.stopped_by)
    figures = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in outcome.evaluation.items())
    log(f"{directory}: {figures}; {outcome.state.training:,.0f} s of training; report {directory / 'report.html'}")
