"""Baselines for dialogue: the commonest reply, and the reply to the most similar turn of the training data.

A conversation's last turn is its reply, the turn before is what it answers; in training every turn of the assistant is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Self

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from lucidlm.core.errors import InputError
from lucidlm.data.examples.records import GeneratedText
from lucidlm.data.scripts import separates_no_words
from lucidlm.tokenize.conversation import Chat

AT_ONCE = 2**24
"""Similarities held at a time."""


class MostCommonReply:
    """The same reply to everything."""

    name = "commonest reply"

    def fit(self, training: Sequence[Chat]) -> Self:
        """Count the replies; of equally common ones the first is taken."""
        self.reply = Counter(reply for _, reply in _exchanges(training)).most_common(1)[0][0]
        return self

    def predict(self, examples: Sequence[Chat]) -> list[GeneratedText]:
        """Return the reply for each."""
        return [GeneratedText(self.reply)] * len(examples)


class NearestReply:
    """The reply to the most similar turn of the training data, by the cosine of TF-IDF vectors."""

    name = "reply to the most similar turn (TF-IDF)"

    def fit(self, training: Sequence[Chat]) -> Self:
        """Keep the turns and their replies."""
        turns, replies = zip(*_exchanges(training), strict=True)
        by_character = separates_no_words(turns)
        self.vectorizer = TfidfVectorizer(
            analyzer="char" if by_character else "word",
            ngram_range=(1, 2) if by_character else (1, 1),
            sublinear_tf=True,
        )
        self.vectors, self.replies = self.vectorizer.fit_transform(turns), replies
        return self

    def predict(self, examples: Sequence[Chat]) -> list[GeneratedText]:
        """Return a reply of the training data to each; to a turn that is like none, the first."""
        queries = self.vectorizer.transform([example.messages[-2].text for example in examples])
        rows, nearest = max(1, AT_ONCE // len(self.replies)), []
        for start in range(0, len(examples), rows):
            similarity = (queries[start : start + rows] @ self.vectors.T).toarray()
            nearest += np.argmax(similarity, axis=1).tolist()
        return [GeneratedText(self.replies[place]) for place in nearest]


def _exchanges(chats: Sequence[Chat]) -> list[tuple[str, str]]:
    """Return each turn of an assistant behind the one it answers.

    Raises
    ------
    InputError: there is none.
    """

    def each() -> Iterator[tuple[str, str]]:
        for chat in chats:
            for before, after in pairwise(chat.messages):
                if after.role == "assistant" and after.counts:
                    yield before.text, after.text

    if not (found := list(each())):
        raise InputError("no assistant answers anything in the training data", where=chats[0].where if chats else None)
    return found
