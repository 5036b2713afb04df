"""The registry of tasks and what every task says about itself.

A new task is one new file: it makes an instance of a kind of task (`TextClassification`, `SequenceToSequence`, …), or a
subclass of one, and registers it here. Other packages add theirs through entry points in the group `lucidlm.task`.

A task knows its data (fields, their check, how a row becomes an example), which model answers it, and what the answers
are held against: metrics and baselines. It does not know how models are trained; `train` does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import torch

from lucidlm.core.errors import InputError
from lucidlm.core.registry import Registry
from lucidlm.data.document import OnError, Reading
from lucidlm.data.examples import Example, Row
from lucidlm.data.sources import read_rows
from lucidlm.metrics.statistics import Metric
from lucidlm.tasks.unread import refuse_file, refuse_form

E = TypeVar("E", bound=Example)
P = TypeVar("P")
Asked = TypeVar("Asked", bound=Example, contravariant=True)


class Predictor(Protocol[Asked, P]):
    """A model that answers examples of one kind."""

    def predict(self, examples: Sequence[Asked], label: str | None = None) -> list[P]:
        """Return an answer to each example, in order; shows progress if given a `label` for it."""
        ...


class Baseline(Protocol[Asked, P]):
    """What a model has to beat: it learns from the training examples, if at all, and answers like a model."""

    name: str

    def fit(self, training: Sequence[Asked]) -> Self:
        """Learn from the training examples."""
        ...

    def predict(self, examples: Sequence[Asked]) -> list[P]:
        """Return an answer to each example, in order."""
        ...


@dataclass(frozen=True)
class Task(ABC, Generic[E, P]):
    """What every task has.

    Parameters
    ----------
    name: what the command line calls it.
    description: one line for `--help` and reports.
    """

    name: str
    description: str

    answer: ClassVar[type]
    """The class of a prediction, a dataclass of plain values, so that predictions can be kept in a file."""

    fields: ClassVar[tuple[str, ...]]
    """The fields that a row of the data may have, under the names that are read where the caller gives no others."""

    def rows(self, row: Row) -> Iterable[Row]:
        """Return the rows that a row of the data stands for: itself, unless the task knows a form that nests them."""
        return (row,)

    @abstractmethod
    def read(self, row: Row) -> E:
        """Turn a row of the data into an example.

        Raises
        ------
        InputError: a field is missing or holds what it cannot; file and line are named.
        """

    @abstractmethod
    def key(self, example: E) -> str:
        """Return the text that says whether two examples are the same and that decides an example's split."""

    @abstractmethod
    def texts(self, example: E) -> tuple[str, ...]:
        """Return all of an example's texts, which the check for leakage looks for in training data."""

    @abstractmethod
    def metrics(self, examples: Sequence[E]) -> list[Metric]:
        """Return what answers to `examples` are judged by; the first decides between two models.

        The examples tell what the metrics need to know of the data: its language, say.
        """

    @abstractmethod
    def baselines(self) -> list[Baseline[E, P]]:
        """Return what a model has to beat, not yet fitted."""

    @abstractmethod
    def predictor(self, directory: Path, device: torch.device) -> Predictor[E, P]:
        """Open a model directory to answer this task.

        Raises
        ------
        InputError: it holds no model that can.
        """

    @abstractmethod
    def show(self, example: E, prediction: P) -> dict[str, Any]:
        """Return what a person wants to see of an answer: plain values by column, the input first."""


tasks: Registry[Task[Any, Any]] = Registry("task")


def read_examples(
    task: Task[E, Any],
    source: str,
    *,
    fields: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
    on_error: OnError = "stop",
    skipped: Counter[str] | None = None,
) -> list[E]:
    """Read the examples of a source (see `lucidlm.data.sources.read_documents` for what a source is).

    Parameters
    ----------
    fields: the names that fields have in the data, by the names that the task knows them by.
    on_error: "stop" raises at the first row that cannot be used, "skip" leaves it out and counts it in `skipped`.

    Raises
    ------
    InputError: there is no such source, nothing in it can be used, or a row cannot and `on_error` is "stop"; or it is of a
        form that the task does not read.
    """
    names = dict(fields or {})
    if unknown := sorted(names.keys() - set(task.fields)):
        fix = f"It knows: {', '.join(task.fields)}."
        raise InputError(f"the task {task.name} has no field {unknown[0]!r}", where="fields", fix=fix)
    refuse_file(task, source)
    rejects = Reading(on_error=on_error, skipped=Counter() if skipped is None else skipped)
    examples: list[E] = []
    found = read_rows(source, encoding=encoding, on_error=on_error, skipped=rejects.skipped)
    for row in chain.from_iterable(task.rows(row.renamed(names)) for row in found):
        try:
            examples.append(task.read(row))
        except InputError as error:
            refuse_form(task, row)
            rejects.reject(error.what, error.what, where=row.where, fix=(error.fix or "").rstrip("."))
    if not examples:
        needed = ", ".join(f'"{names.get(name, name)}"' for name in task.fields)
        raise InputError("holds no examples", where=source, fix=f"The fields of a row are {needed}.")
    return examples
