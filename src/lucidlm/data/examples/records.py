"""What a row of labelled data holds, and what a model answers to it: one small record for each kind of task.

Every example knows the place it was read from (`file:line`), so that whatever is wrong with it can be named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from lucidlm.core.errors import InputError
from lucidlm.data.cleaning.clean import CleanConfig, Cleaner
from lucidlm.data.formats.rows import SURROGATES, describe_missing, is_missing, label_text

CLEAN = Cleaner(CleanConfig(repetition=False))
"""Texts are cleaned as they are for pretraining, so a text falls into the same split there and here; the filters on
length and repetition do not apply, since a short or monotonous review has a label as well as another one."""


@dataclass(frozen=True, slots=True)
class Row:
    """The fields of one row of a source as they were read, and where that was."""

    fields: Mapping[str, Any]
    where: str
    names: Mapping[str, str] = field(default_factory=dict)
    """What the row calls a field, by the name that it is asked for, where the two differ."""
    clean: Cleaner = CLEAN

    def renamed(self, names: Mapping[str, str], clean: Cleaner = CLEAN) -> Row:
        """Return the same row, with other names for its fields, and perhaps another way to clean its texts."""
        return Row(self.fields, self.where, names, clean)

    def text(self, name: str) -> str:
        """Return the field `name`, a string that is not blank.

        Raises
        ------
        InputError: it is missing, empty or no string.
        """
        value, called = self.value(name), self.names.get(name, name)
        if not isinstance(value, str):
            raise InputError(f'field "{called}" holds a {type(value).__name__}, not a string', where=self.where)
        if SURROGATES.search(value):
            raise InputError(f'field "{called}" holds half of a character (a lone surrogate)', where=self.where)
        if not value.strip():
            raise InputError(f'field "{called}" holds no text', where=self.where)
        return value

    def cleaned(self, name: str) -> str:
        """Return the field `name`, a string, cleaned as for pretraining, so that it falls into the same split.

        Raises
        ------
        InputError: it is missing, no string, or no text is left of it.
        """
        if not (text := self.clean(self.text(name))):
            raise InputError(f'field "{self.names.get(name, name)}" holds no text', where=self.where)
        return text

    def label(self, name: str) -> str:
        """Return the field `name`, a label: a string or a number.

        Raises
        ------
        InputError: it is missing, also as programs write what is missing (NaN, null), or holds something else.
        """
        value, called = self.value(name), self.names.get(name, name)
        if isinstance(value, (dict, list)):
            raise InputError(f'field "{called}" holds a {type(value).__name__}, not a label', where=self.where)
        if (label := label_text(value)) is None:
            raise InputError(describe_missing(called, self.fields), where=self.where)
        return label

    def has(self, name: str) -> bool:
        """Return whether the row has the field `name`, and something in it."""
        return not is_missing(self.fields.get(self.names.get(name, name)))

    def value(self, name: str) -> Any:
        """Return the field `name`, whatever it holds.

        Raises
        ------
        InputError: it is missing, null or NaN.
        """
        called = self.names.get(name, name)
        if is_missing(self.fields.get(called)):
            raise InputError(describe_missing(called, self.fields), where=self.where)
        return self.fields[called]


class Example(Protocol):
    """What all examples have."""

    @property
    def where(self) -> str:
        """The place it was read from, `file:line`."""
        ...


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text and its label as the data writes it."""

    text: str
    label: str
    where: str


@dataclass(frozen=True, slots=True)
class LabelledPair(LabelledText):
    """Likewise two texts, `text` and `other`, whose relation the label names."""

    other: str


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """Two texts and how similar they are, on the data's own scale."""

    text: str
    other: str
    score: float
    where: str


TwoTexts = LabelledPair | ScoredPair


@dataclass(frozen=True, slots=True)
class MultiLabelText:
    """A text and its labels, none or several, as the data writes them; no two are equal."""

    text: str
    labels: tuple[str, ...]
    where: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A stretch of a context: `context[start : start + len(text)] == text`, counted in characters."""

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a context; any of `answers` is right, and without answers the context holds none."""

    id: str
    context: str
    question: str
    answers: tuple[Answer, ...]
    where: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A source text and its target; `references` are all accepted targets, `target` is the first of them."""

    source: str
    target: str
    references: tuple[str, ...]
    where: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A plain text, for language modelling."""

    text: str
    where: str


@dataclass(frozen=True, slots=True)
class MinimalPair:
    """An acceptable and an unacceptable sentence that differ minimally, and the phenomenon they test."""

    good: str
    bad: str
    phenomenon: str
    where: str


@dataclass(frozen=True, slots=True)
class Match:
    """A query/positive pair for retrieval: a search and its relevant item, or a user's history and the next item.

    Parameters
    ----------
    query: one text for a search, the items that a user chose so far for a recommendation.
    item: the positive, to be ranked first among the items of all examples.
    """

    query: tuple[str, ...]
    item: str
    where: str


@dataclass(frozen=True, slots=True)
class TaggedSentence:
    """The words of a sentence and the BIO tag of each; see `lucidlm.data.examples.bio`."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    where: str


@dataclass(frozen=True, slots=True)
class ClassPrediction:
    """A classifier's answer: a probability for each of `labels`."""

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]

    @property
    def label(self) -> str:
        """The most probable label; the first of several."""
        return self.labels[self.probabilities.index(max(self.probabilities))]


@dataclass(frozen=True, slots=True)
class NumberPrediction:
    """The number that a regressor gives."""

    value: float


@dataclass(frozen=True, slots=True)
class MultiLabelPrediction:
    """A multi-label classifier's answer: for each of `labels` its probability, and from which one on it is chosen."""

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    thresholds: tuple[float, ...]

    @property
    def chosen(self) -> tuple[str, ...]:
        """The labels whose probability reaches their threshold; there may be none."""
        each = zip(self.labels, self.probabilities, self.thresholds, strict=True)
        return tuple(label for label, probability, threshold in each if probability >= threshold)


@dataclass(frozen=True, slots=True)
class Span:
    """The stretch of a context that a reader takes for the answer; an empty text says that there is none."""

    text: str
    start: int
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Tags:
    """A tagger's answer: a BIO tag for each word of a sentence."""

    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entity:
    """A stretch of a text that a tagger takes for an entity: `text[start:end]`, in characters."""

    type: str
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class GeneratedText:
    """A generated text, and the loss on the reference: nats in all, over so many tokens (0: not measured)."""

    text: str
    nats: float = 0.0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Preference:
    """The log-probabilities, in nats, of the two sentences of a minimal pair."""

    good: float
    bad: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """Items, the best first, as many as were asked for."""

    items: tuple[str, ...]
