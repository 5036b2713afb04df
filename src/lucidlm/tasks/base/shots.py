"""Few examples of many: what a model is tuned on when labels are scarce."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from lucidlm.core.progress import log
from lucidlm.core.seeds import numpy_generator
from lucidlm.tasks.base.task import Task
from lucidlm.tasks.text_classification import TextClassification

E = TypeVar("E")


def draw_shots(examples: Sequence[E], shots: int, label_of: Callable[[E], str] | None, seed: int) -> list[E]:
    """Return `shots` examples of each label, or in all where there are no labels, in the order they came in.

    With one seed, fewer shots are a part of more shots. A label that has fewer examples gives all it has; that is said.

    Parameters
    ----------
    label_of: returns the label of an example; None: examples have none.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        groups["" if label_of is None else label_of(example)].append(index)
    chosen: list[int] = []
    for label, rows in sorted(groups.items()):
        chosen += [rows[place] for place in numpy_generator(seed, "shots", label).permutation(len(rows))[:shots]]
    if short := [
        f"{label or 'the data'} has {len(rows):,}" for label, rows in sorted(groups.items()) if len(rows) < shots
    ]:
        rest = f" and {len(short) - 5} others" if len(short) > 5 else ""
        log(f"fewer than {shots:,} examples: {', '.join(short[:5])}{rest}")
    return [examples[index] for index in sorted(chosen)]


def draw(examples: Sequence[E], limit: int | None, seed: int) -> list[E]:
    """Return `limit` examples drawn at random, in the order they came in; all of them if there are no more, or for None."""
    if limit is None or limit >= len(examples):
        return list(examples)
    rows = numpy_generator(seed, "limit").permutation(len(examples))[:limit]
    return [examples[row] for row in sorted(rows)]


def labels_of(task: Task[Any, Any], examples: Sequence[Any]) -> Callable[[Any], str] | None:
    """Return what tells the label of an example, synonyms taken for one; None where examples have none.

    Raises
    ------
    InputError: the examples have fewer than two labels.
    """
    if not isinstance(task, TextClassification):
        return None
    labels = task.discover_labels(examples)
    return lambda example: task.known_as(example.label, labels) or example.label
