"""The registry of tasks and what every task says about itself.

A new task is one new file: it makes an instance of a kind of task (`TextClassification`, `SequenceToSequence`, …), or a
subclass of one, and registers it here. Other packages add theirs through entry points in the group `lucidlm.task`.

A task knows its data (fields, their checks, how a row becomes an example), which kind of model predicts, and its metrics
and baselines. It does not know how models are trained; `train` does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.core.progress import log
from lucidlm.core.registry import Registry
from lucidlm.data.cleaning.clean import CleanConfig, Cleaner
from lucidlm.data.cleaning.html import Html
from lucidlm.data.document import OnError, Reading
from lucidlm.data.examples.records import Example, Row
from lucidlm.data.formats.rows import repeated
from lucidlm.data.sources.read import read_rows
from lucidlm.metrics.statistics import Metric
from lucidlm.tasks.base.unread import refuse_file, refuse_form
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.tokenize.unknown import Unknown, count_unknown

E = TypeVar("E", bound=Example)
P = TypeVar("P")
Asked = TypeVar("Asked", bound=Example, contravariant=True)


class Predictor(Protocol[Asked, P]):
    """A model that answers examples of one kind."""

    def predict(self, examples: Sequence[Asked], label: str | None = None) -> list[P]:
        """Return an answer to each example, in order; shows progress if given a `label` for it."""
        ...


class Baseline(Protocol[Asked, P]):
    """A simple method to compare a model with: fitted to the training examples, it predicts like a model."""

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

    tunable: ClassVar[bool] = True
    """Whether models are fine-tuned for it; other tasks only evaluate pretrained models."""

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
        """Return the text that identifies an example and whose hash decides its split."""

    def target(self, example: E) -> Hashable:
        """Return the target of the example; two examples with equal `key` and target are duplicates.

        None if the key is enough to tell.
        """
        return None

    def together(self, examples: Sequence[E]) -> list[E]:
        """Return the examples of one key as they are evaluated: merged into one with several references, or as they are."""
        return list(examples)

    @abstractmethod
    def texts(self, example: E) -> tuple[str, ...]:
        """Return all of an example's texts, which the check for leakage looks for in training data."""

    @abstractmethod
    def metrics(self, examples: Sequence[E]) -> list[Metric]:
        """Return the metrics of predictions for `examples`; the first one decides between two models.

        Metrics may depend on the data, on its language for instance.
        """

    @abstractmethod
    def baselines(self) -> list[Baseline[E, P]]:
        """Return the baselines, not yet fitted."""

    @abstractmethod
    def predictor(self, loaded: LoadedModel) -> Predictor[E, P]:
        """Return what answers this task with a loaded model, on the device that this is on.

        Raises
        ------
        InputError: the model cannot.
        """

    @abstractmethod
    def show(self, example: E, prediction: P) -> dict[str, Any]:
        """Return a prediction for display: plain values by column, the input first."""


tasks: Registry[Task[Any, Any]] = Registry("task")


def read_examples(
    task: Task[E, Any],
    source: str,
    *,
    fields: Mapping[str, str] | None = None,
    encoding: str = "auto",
    on_error: OnError = "stop",
    skipped: Counter[str] | None = None,
    html: Html = "auto",
) -> list[E]:
    """Read the examples of a source (see `lucidlm.data.sources.read.read_documents` for what a source is).

    Parameters
    ----------
    fields: the names that fields have in the data, by the names that the task knows them by.
    on_error: "stop" raises at the first row that cannot be used, "skip" leaves it out and counts it in `skipped`.
    html: "yes" takes all strings for HTML; otherwise only texts that are cleaned as for pretraining are looked at.

    Raises
    ------
    InputError: there is no such source, nothing in it can be used, or a row cannot and `on_error` is "stop"; or it is of a
        form that the task does not read.
    """
    names = dict(fields or {})
    if unknown := sorted(names.keys() - set(task.fields)):
        fix = f"It knows: {', '.join(task.fields)}."
        raise InputError(f"the task {task.name} has no field {unknown[0]!r}", where="fields", fix=fix)
    if twice := repeated([*names.values()]):
        asked = [name for name, found in names.items() if found == twice[0]]
        what = f'the fields "{asked[0]}" and "{asked[1]}" are both to be read from "{twice[0]}"'
        raise InputError(what, where="fields", fix="Give each a field of its own.")
    wanted = f"{task.name} reads a row for each example, with the fields {', '.join(task.fields)}."
    refuse_file(wanted, task.fields, source)
    rejects = Reading(on_error=on_error, skipped=Counter() if skipped is None else skipped)
    # Under "yes" there is nothing left to look for: the rows were read so.
    clean = Cleaner(CleanConfig(repetition=False, html="auto" if html == "auto" else "no"))
    examples: list[E] = []
    found = read_rows(source, encoding=encoding, on_error=on_error, skipped=rejects.skipped, html=html)
    for row in chain.from_iterable(task.rows(row.renamed(names, clean)) for row in found):
        try:
            examples.append(task.read(row))
        except InputError as error:
            refuse_form(wanted, task.fields, row)
            rejects.reject(
                error.what, error.what, where=str(error.where or row.where), fix=(error.fix or "").rstrip(".")
            )
    if count := clean.counts["html"]:
        log(f"{source}: HTML becomes plain text in {count:,} examples' texts (--html no leaves it)")
    if not examples:
        needed = ", ".join(f'"{names.get(name, name)}"' for name in task.fields)
        raise InputError("holds no examples", where=source, fix=f"The fields of a row are {needed}.")
    return examples


def unknown_to(tokenizer: Tokenizer, task: Task[E, Any], examples: Iterable[E]) -> Unknown:
    """Count the characters of the examples' texts, each text once, that `tokenizer` has no token for."""
    places: dict[str, str] = {}
    for example in examples:
        for text in task.texts(example):
            places.setdefault(text, example.where)
    return count_unknown(tokenizer, list(places), list(places.values()))
