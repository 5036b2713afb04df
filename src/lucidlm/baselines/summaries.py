"""Baselines for summarization: the beginning of the text, and its longest turn or sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Self

from lucidlm.data.examples.records import GeneratedText, Pair
from lucidlm.data.scripts import sentences, separates_no_words

_SPEAKER = re.compile(r"#?\w[\w .'-]{0,30}#?\s*[:：]\s*")
"""Who speaks, at the beginning of a line: `#Person1#:`, `Amanda:`."""


class LeadSentences:
    """The first sentences of a text; of a conversation, where each line names its speaker, as many turns."""

    def __init__(self, count: int = 3) -> None:
        self.count = count
        self.name = f"first {count} sentences" if count > 1 else "first sentence"

    def fit(self, training: Sequence[Pair]) -> Self:
        """There is nothing to learn."""
        return self

    def predict(self, examples: Sequence[Pair]) -> list[GeneratedText]:
        """Return the beginning of each source."""
        return [GeneratedText(_joined(_parts(example.source)[: self.count])) for example in examples]


class LongestUtterance:
    """The longest turn of a conversation, or sentence of another text: the first of several."""

    name = "longest utterance"

    def fit(self, training: Sequence[Pair]) -> Self:
        """There is nothing to learn."""
        return self

    def predict(self, examples: Sequence[Pair]) -> list[GeneratedText]:
        """Return the longest part of each source."""
        return [GeneratedText(max(_parts(example.source), key=len, default="")) for example in examples]


def _parts(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and all(_SPEAKER.match(line) for line in lines):
        return lines
    return [text[start:end] for start, end in sentences(text)]


def _joined(parts: list[str]) -> str:
    return ("" if separates_no_words(parts) else " ").join(parts)
