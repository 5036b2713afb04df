"""The registry of tasks and what every task has.

A new task is one new file: it makes an instance of a kind of task (`TextClassification`, …) and registers it here.
Other packages add theirs through entry points in the group `lucidlm.task`.
"""

from __future__ import annotations

from dataclasses import dataclass

from lucidlm.core.registry import Registry


@dataclass(frozen=True)
class Task:
    """What every task has; the kinds of task add the fields of the data they read and how they read it.

    Parameters
    ----------
    name: what the command line calls it.
    description: one line for `--help` and reports.
    """

    name: str
    description: str


tasks: Registry[Task] = Registry("task")
