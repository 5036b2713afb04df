"""The splits of a task's examples: training, validation (chooses the best weights) and test.

All examples of one text are in one split. A hash of the text decides which, as in preparing a corpus. Labelled examples
are split for each label separately (stratified). The bounds are saved with the model, so that its training examples are
known even after its data have grown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lucidlm.core.errors import InputError
from lucidlm.core.progress import log
from lucidlm.data.examples.config import OnConflict, PartsConfig
from lucidlm.data.split import Bounds, Split, place_of, split_at, stratified_bounds
from lucidlm.tasks.base.task import Task, read_examples
from lucidlm.tasks.multi_label import MultiLabelClassification
from lucidlm.tasks.text_classification import TextClassification

NAMED = 5
"""How many texts with several labels, and how many rare labels, are named."""
EXCERPT = 40
"""Characters of a text by which it is known again."""


class Parts(dict[Split, list[Any]]):
    """The examples of each split, and the bounds by label that they were split at: none without labels."""

    bounds: Bounds


@dataclass
class _Group:
    """The examples of one text, each with another target, the text's place (see `place_of`), and its first label."""

    examples: list[Any]
    place: float
    label: str = ""


def read_parts(config: PartsConfig, task: Task[Any, Any], bounds: Bounds | None = None) -> Parts:
    """Read the examples, leave out repeated ones, and part them.

    A text that stands among the validation examples of a source of their own is left out of the others. Several targets
    of one text are all learned, and make one example with several references where they are judged by.

    Parameters
    ----------
    bounds: those that the examples were parted by before; None: they are found, so that each part has its share of each
        label, and labels too rare for that are named.

    Raises
    ------
    InputError: the data cannot be read, none of it is left for training, a text has two labels and `on_conflict` is
        "stop", or a label of the validation examples is not among those to learn from.
    """
    chosen = _read(config, task, config.validation_data) if config.validation_data else {}
    groups = _read(config, task, config.data)
    count = sum(len(group.examples) for group in groups.values())
    name = _names(task, [*chosen.values(), *groups.values()])
    if name is not None:
        _settle(chosen, name, config.validation_data or "", config.on_conflict)
        _settle(groups, name, config.data, config.on_conflict)
    if shared := groups.keys() & chosen.keys():
        log(f"{config.data}: {len(shared):,} texts left out that are among the validation examples")
    left = [group for text, group in groups.items() if text not in shared]
    held_out = 0.0 if config.validation_data else config.validation
    parts = Parts({"train": [], "validation": [], "test": []})
    stratify = bounds is None and isinstance(task, TextClassification)  # a text with several labels has no stratum
    parts.bounds = _stratified(left, held_out, config.test) if stratify else bounds or {}
    parts["validation"] = [one for group in chosen.values() for one in task.together(group.examples)]
    for group in left:
        cuts = parts.bounds.get(group.label, (config.test, config.test + held_out))
        part = split_at(group.place, *cuts)
        parts[part] += group.examples if part == "train" else task.together(group.examples)
    if not parts["train"]:
        raise InputError(
            f"none of its {count:,} examples is left to train on",
            where=config.data,
            fix="Hold out less (--validation, --test) or pass more data.",
        )
    if name is not None and stratify:
        _require_labels(parts, name, config.data)
    return parts


def as_judged(task: Task[Any, Any], examples: list[Any], source: str) -> list[Any]:
    """Return examples as they are judged where none is learned from: all targets of one text are its references.

    Texts with several labels are named; no answer can be right for all of these.
    """
    if not examples or task.target(examples[0]) is None:
        return examples
    groups = _grouped(task, examples)
    if (name := _names(task, groups.values())) is not None:
        _settle(groups, name, source, "keep")
        return examples
    found = [one for group in groups.values() for one in task.together(group.examples)]
    if len(found) == len(examples):
        return examples
    log(f"{source}: {len(examples):,} examples of {len(found):,} texts: the targets of one text are its references")
    return found


def _read(config: PartsConfig, task: Task[Any, Any], source: str) -> dict[str, _Group]:
    """Return the examples of `source` by their text, repeated ones left out; say how many those were."""
    skipped: Counter[str] = Counter()
    found = read_examples(
        task,
        source,
        fields=config.fields,
        encoding=config.encoding,
        html=config.html,
        on_error=config.on_error,
        skipped=skipped,
    )
    groups = _grouped(task, found)
    kept = sum(len(group.examples) for group in groups.values())
    if skipped or kept < len(found):
        reasons = "".join(f", {count:,} skipped: {reason}" for reason, count in skipped.items())
        log(f"{source}: {len(found) - kept:,} repeated examples left out{reasons}")
    return groups


def _grouped(task: Task[Any, Any], examples: Iterable[Any]) -> dict[str, _Group]:
    """Return examples by their text, whatever the white space in it, without those that are there already."""
    groups: dict[str, _Group] = {}
    seen: set[tuple[str, Hashable]] = set()
    for example in examples:
        key = task.key(example)
        if (known := (key, task.target(example))) not in seen:
            seen.add(known)
            groups.setdefault(" ".join(key.split()), _Group([], place_of(key))).examples.append(example)
    return groups


# ---------------------------------------------------------------------- labels


def _names(task: Task[Any, Any], groups: Iterable[_Group]) -> Callable[[Any], str] | None:
    """Return what the label of an example is called, or its set of labels; None where examples have none."""
    if isinstance(task, MultiLabelClassification):
        return lambda example: f"the set {{{', '.join(sorted(example.labels))}}}"
    if not isinstance(task, TextClassification):
        return None
    names = task.names(example.label for group in groups for example in group.examples)
    return lambda example: names[example.label]


def _settle(groups: dict[str, _Group], name: Callable[[Any], str], source: str, on_conflict: OnConflict) -> None:
    """Give each text its label, and do with those that have several as was chosen; say what and with which."""
    conflicts = []
    for text, group in list(groups.items()):
        first: dict[str, Any] = {}
        for example in group.examples:
            first.setdefault(name(example), example)
        group.examples, group.label = list(first.values()), next(iter(first))
        if len(first) == 1:
            continue
        if on_conflict == "drop":
            del groups[text]
        elif on_conflict == "first":
            group.examples = group.examples[:1]
        said = " and ".join(f"{label!r} ({example.where})" for label, example in first.items())
        conflict = f'"{_excerpt(text)}" is {said}'
        conflicts.append(conflict)
        if on_conflict == "stop":
            fix = "Correct them, or choose what becomes of such texts: --on-conflict drop, first or keep."
            raise InputError(f"a text has several labels: {conflict}", where=source, fix=fix)
    if conflicts:
        done = {"drop": "left out", "first": "the first is taken", "keep": "all are taken"}[on_conflict]
        more = f"; and {len(conflicts) - NAMED:,} more" if len(conflicts) > NAMED else ""
        log(f"{source}: texts with several labels: {len(conflicts):,}, {done}: {'; '.join(conflicts[:NAMED])}{more}")


def _stratified(groups: Sequence[_Group], validation: float, test: float) -> Bounds:
    """Return the bounds that give each part its share of each label; name the labels that are too rare for that."""
    by_label: dict[str, list[_Group]] = defaultdict(list)
    for group in groups:
        by_label[group.label].append(group)
    places = {label: [group.place for group in found] for label, found in sorted(by_label.items())}
    bounds = stratified_bounds(places, validation, test)
    whole = [label for label, found in places.items() if min(found) >= bounds[label][1]]
    if rare := [label for label in whole if len(places[label]) == 1 or validation + test > 0]:
        named = ", ".join(_tally(label, by_label[label]) for label in rare[:NAMED])
        more = f" and {len(rare) - NAMED:,} others" if len(rare) > NAMED else ""
        log(f"labels too rare to hold any out are only learned from: {named}{more}. Are they spelt right?")
    return bounds


def _tally(label: str, groups: Sequence[_Group]) -> str:
    number = "1 example" if len(groups) == 1 else f"{len(groups):,} examples, the first"
    return f"{label!r} ({number} at {groups[0].examples[0].where})"


def _require_labels(parts: Parts, name: Callable[[Any], str], source: str) -> None:
    """Refuse validation examples of a label that no training example has, which only those of another source can be."""
    known = {name(example) for example in parts["train"]}
    for example in parts["validation"]:
        if name(example) not in known:
            raise InputError(
                f"the label {example.label!r} is not among those of the training data ({', '.join(sorted(known))})",
                where=example.where,
                fix=f"Correct it, leave it out, or add examples of it to {source}.",
            )


def _excerpt(text: str) -> str:
    return text if len(text) <= EXCERPT else text[:EXCERPT].rstrip() + "…"
