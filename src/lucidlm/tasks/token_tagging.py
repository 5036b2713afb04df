"""Token tagging: the words of a sentence in, a BIO tag for each out; named entities, as in CoNLL's shared tasks.

Data are files with a word and its tag in each line (`.conll`, `.bio`, `.iob`, `.iob2`, or such a file called `.txt`), or
rows with the lists `tokens` and `tags`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, ClassVar

from lucidlm.baselines.taggers import MostFrequentTag, NoEntity
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.data.examples.bio import entities, first_fault, tag_names
from lucidlm.data.examples.records import Row, TaggedSentence, Tags
from lucidlm.data.formats.conll import tagged_sentences
from lucidlm.data.formats.rows import SURROGATES
from lucidlm.metrics.entity_metrics import entity_metrics
from lucidlm.metrics.statistics import Metric
from lucidlm.predict.token_tagger import TokenTagger
from lucidlm.tasks.base.task import Baseline, Predictor, Task, tasks

SCHEME = "Tags are BIO (IOB2): O, B- before the type at the first word of an entity, I- at its other words"


@dataclass(frozen=True)
class TokenTagging(Task[TaggedSentence, Tags]):
    """A BIO tag for each word of a sentence.

    Words stay as they are read: cleaning could leave nothing of one.
    """

    answer: ClassVar[type] = Tags
    fields: ClassVar[tuple[str, ...]] = ("tokens", "tags")

    def rows(self, row: Row) -> Iterable[Row]:
        """Return the sentences of a row that is a text file with a word and its tag in each line."""
        file, line = re.fullmatch(r"(.*?)(?::(\d+))?", row.where, re.DOTALL).groups()  # type: ignore[union-attr]
        text = row.fields.get("text")
        if not isinstance(text, str) or ".txt" not in PurePath(file).suffixes:
            return (row,)
        lines = enumerate(re.split(r"\r?\n|\r", text), int(line or 1))
        return (Row(found, f"{file}:{found['lines'][0]}") for found in tagged_sentences(lines))

    def read(self, row: Row) -> TaggedSentence:
        """Turn a row with words and their tags into an example, and check that the tags are BIO."""
        tokens, tags = (_strings(row, name) for name in self.fields)
        if len(tokens) != len(tags):
            what = f"has {len(tokens):,} tokens and {len(tags):,} tags"
            raise InputError(what, where=row.where, fix="Give each token one tag")
        if (fault := first_fault(tags)) is not None:
            place, what = fault
            fix = SCHEME
            if "follows" in what:
                fix += "; in IOB1 files, where B- only parts two entities, every I- that begins one has to become B-"
            raise InputError(what, where=_place(row, place), fix=fix)
        return TaggedSentence(tokens, tags, row.where)

    def key(self, example: TaggedSentence) -> str:
        """Return the words: a sentence that is there twice is learned once, with the tags that it has first."""
        return " ".join(example.tokens)

    def texts(self, example: TaggedSentence) -> tuple[str, ...]:
        """Return the sentence, with spaces between its words."""
        return (" ".join(example.tokens),)

    def metrics(self, examples: Sequence[TaggedSentence]) -> list[Metric]:
        """Return F1, precision and recall of entities, and the share of tags that are right."""
        return entity_metrics()

    def baselines(self) -> list[Baseline[TaggedSentence, Tags]]:
        """Return no entity at all, and each word's most frequent tag."""
        return [NoEntity(), MostFrequentTag()]

    def predictor(self, loaded: LoadedModel) -> Predictor[TaggedSentence, Tags]:
        """Return a tagger."""
        return TokenTagger.of(loaded)

    def show(self, example: TaggedSentence, prediction: Tags) -> dict[str, Any]:
        """Return the words, their tags and those predicted."""
        return {"words": list(example.tokens), "tags": list(example.tags), "predicted": list(prediction.tags)}

    def discover_labels(self, examples: Sequence[TaggedSentence]) -> list[str]:
        """Return the tags to learn: O, and B- and I- of each type of entity in the training data, sorted.

        Raises
        ------
        InputError: there is no entity in them.
        """
        types = {kind for example in examples for kind, _, _ in entities(example.tags)}
        if not types:
            what = f"all {len(examples):,} examples are without entities"
            raise InputError(what, where=examples[0].where, fix="A tagger learns from sentences with some.")
        return tag_names(types)


def _strings(row: Row, name: str) -> tuple[str, ...]:
    """Return the field `name` of a row, a list of strings that are not blank."""
    found, called = row.value(name), row.names.get(name, name)
    if not isinstance(found, list) or not found:
        held = "an empty list" if found == [] else f"a {type(found).__name__}"
        what = f'field "{called}" holds {held}, not a list of strings'
        raise InputError(what, where=row.where, fix='Write {"tokens": ["Ada", "wrote"], "tags": ["B-PER", "O"]}')
    for index, value in enumerate(found):
        where = _place(row, index)
        if value is None or value == "":
            what = "a word without a tag" if name == "tags" else "a tag without a word"
            raise InputError(what, where=where, fix="Each line holds a word and, as its last column, its tag")
        if not isinstance(value, str):
            what = f'field "{called}" holds {value!r}, not a string'
            raise InputError(what, where=where, fix="Write tags by their names, B-PER" if name == "tags" else "")
        if SURROGATES.search(value):
            raise InputError(f'field "{called}" holds half of a character (a lone surrogate)', where=where)
    return tuple(found)


def _place(row: Row, index: int) -> str:
    """Return where a word of a row stands: its line, or the row and its number there."""
    lines = row.fields.get("lines")
    if lines is None:
        return f"{row.where}, token {index + 1:,}"
    return f"{row.where.rpartition(':')[0]}:{lines[index]}"


TOKEN_TAGGING = tasks.register("token-tagging")(
    TokenTagging(name="token-tagging", description="a tag for each word of a sentence: named entities (BIO)")
)
