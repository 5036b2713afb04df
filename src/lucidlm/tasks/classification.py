"""Text classification: labelled texts in, label names and numbers out.

Which labels there are is discovered from the training data and saved by name in the model directory; data that is
read later is matched against those names, so the order of a file never decides what a class means.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lucidlm.core.errors import InputError
from lucidlm.core.progress import say
from lucidlm.data.clean import CleanConfig, Cleaner
from lucidlm.data.document import OnError, Reading
from lucidlm.data.sources import read_documents
from lucidlm.tasks.base import Task


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text, its label as the data writes it, and the place it was read from (`file:line`)."""

    text: str
    label: str
    where: str


@dataclass(frozen=True)
class TextClassification(Task):
    """One label for each text.

    Parameters
    ----------
    text_field, label_field: the fields of a row that hold them, where the caller names no others.
    synonyms: other spellings of the label names. They hold only where all labels of the training data are among them,
        so 0 and 1 become names but 0, 1 and 2 stay what they are.
    """

    text_field: str = "text"
    label_field: str = "label"
    synonyms: Mapping[str, str] = field(default_factory=dict)

    def discover_labels(self, examples: Sequence[LabelledText]) -> list[str]:
        """Return the label names of the training data, sorted.

        Raises
        ------
        InputError: the data has fewer than two labels: there is nothing to tell apart.
        """
        known = {*self.synonyms, *self.synonyms.values()}
        found = Counter(example.label for example in examples)
        if found.keys() <= known:
            found = Counter(self.synonyms.get(example.label, example.label) for example in examples)
        if len(found) < 2:
            what = f"all {len(examples):,} examples have one label, {next(iter(found))!r}" if found else "no examples"
            place = examples[0].where if examples else None
            raise InputError(what, where=place, fix="A classifier learns from examples of two labels or more.")
        if single := sorted(label for label, count in found.items() if count == 1):
            names = ", ".join(map(repr, single[:5])) + (", …" if len(single) > 5 else "")
            say(f"Some labels have one example, too few to learn from: {names}. Are they spelt right?")
        return sorted(found)

    def label_ids(self, examples: Sequence[LabelledText], labels: Sequence[str]) -> np.ndarray:
        """Return the place of each example's label in `labels`, int64 (n,).

        Raises
        ------
        InputError: a label is not among them; the message names its file and line.
        """
        place = {label: index for index, label in enumerate(labels)}
        for synonym, label in self.synonyms.items():
            if label in place:
                place.setdefault(synonym, place[label])
        ids = np.empty(len(examples), dtype=np.int64)
        for index, example in enumerate(examples):
            if (found := place.get(example.label)) is None:
                raise InputError(
                    f"the label {example.label!r} is not one the model knows ({', '.join(labels)})",
                    where=example.where,
                    fix="Correct it, or fine-tune on data that has it.",
                )
            ids[index] = found
        return ids


def read_examples(
    source: str,
    task: TextClassification,
    *,
    text_field: str | None = None,
    label_field: str | None = None,
    encoding: str = "utf-8",
    on_error: OnError = "stop",
    skipped: Counter[str] | None = None,
) -> list[LabelledText]:
    """Read the labelled texts of a source (see `lucidlm.data.sources.read_documents`).

    Texts are cleaned as they are for pretraining, so a text falls into the same split there and here; the filters on
    length and repetition do not apply, since a short or monotonous review has a label as well as another one.

    Parameters
    ----------
    text_field, label_field: the fields to read, where they are not the task's own.
    on_error: "stop" raises at the first row that cannot be used, "skip" leaves it out and counts it in `skipped`.

    Raises
    ------
    InputError: there is no such source, nothing in it can be used, or a row cannot and `on_error` is "stop".
    """
    text_field, label_field = text_field or task.text_field, label_field or task.label_field
    rejects = Reading(on_error=on_error, skipped=Counter() if skipped is None else skipped)
    documents = read_documents(
        source,
        text_field=text_field,
        label_field=label_field,
        encoding=encoding,
        on_error=on_error,
        skipped=rejects.skipped,
    )
    clean = Cleaner(CleanConfig(repetition=False))
    examples = []
    for document in documents:
        label = "" if document.label is None else document.label.strip()
        text = clean(document.text)
        if not label:
            what = f'field "{label_field}" is empty' if document.label is not None else f'has no field "{label_field}"'
            rejects.reject("no label", what, where=document.where)
        elif not text:
            rejects.reject("empty text", f'field "{text_field}" holds no text', where=document.where)
        else:
            examples.append(LabelledText(text, label, document.where))
    if not examples:
        fix = f'Each row needs the fields "{text_field}" and "{label_field}".'
        raise InputError("holds no labelled texts", where=source, fix=fix)
    return examples
