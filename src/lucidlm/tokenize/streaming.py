"""Streaming decoders: text from ids that arrive one at a time, together the same as decoding all at once."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Protocol

UNFINISHED = "\ufffd"
"""What stands for bytes that are no character, or not one yet."""


class Decoding(Protocol):
    """What decoding token by token needs of a `Tokenizer`."""

    def token_bytes(self, token_id: int) -> bytes: ...

    def read_out(self, ids: Iterable[int]) -> str: ...

    def shows(self, token_id: int) -> bool: ...

    def is_byte(self, token_id: int) -> bool: ...


class ByteDecoder:
    """For tokens that stand for bytes wherever they stand: holds back a character until all its bytes are there."""

    def __init__(self, tokenizer: Decoding) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """Return the text that `token_id` completes, which may be empty."""
        return self._utf8.decode(self._tokenizer.token_bytes(int(token_id)) if self._tokenizer.shows(token_id) else b"")

    def flush(self) -> str:
        """Return what was held back: empty, or U+FFFD for a character that was never completed."""
        return self._utf8.decode(b"", final=True)


class ContextDecoder:
    """For tokens that say different things in different places: the first of a text has no space before it.

    That is all they heed of what stands before them, but for bytes of characters that are not in the vocabulary: a row of
    them is taken together, and if it is no UTF-8, none of it is, so it is held back until it ends.
    """

    def __init__(self, tokenizer: Decoding, context: Sequence[int], *, vocab_size: int, cleans: bool) -> None:
        self._tokenizer, self._vocab_size = tokenizer, vocab_size
        self._begun = bool(tokenizer.read_out(context))
        self._held = [] if self._begun else [token for token in context if tokenizer.shows(token)]
        self._cleaner = Cleaner() if cleans else None

    def push(self, token_id: int) -> str:
        """Return the text that `token_id` makes certain, which may be empty."""
        if not self._tokenizer.shows(token_id):
            return ""
        self._held.append(int(token_id))
        if self._tokenizer.is_byte(token_id):
            return ""
        text = self._text()
        # Nothing yet may mean that what comes is still the beginning.
        return "" if not text or text.endswith(UNFINISHED) else self._release(text)

    def flush(self) -> str:
        """Return what was held back."""
        text = self._release(self._text())
        return text + (self._cleaner.flush() if self._cleaner else "")

    def _text(self) -> str:
        before = [] if not self._begun else self._word
        return self._tokenizer.read_out([*before, *self._held])[len(self._tokenizer.read_out(before)) :]

    def _release(self, text: str) -> str:
        self._held.clear()
        self._begun = self._begun or bool(text)
        return self._cleaner.push(text) if self._cleaner else text

    @cached_property
    def _word(self) -> list[int]:
        """Any token to decode after; which one makes no difference."""
        tokenizer = self._tokenizer
        shown = [index for index in range(self._vocab_size) if tokenizer.shows(index)]
        words = (index for byte in (False, True) for index in shown if tokenizer.is_byte(index) is byte)
        return next(([index] for index in words if tokenizer.read_out([index])), [])


CLEANED = {" .": ".", " ?": "?", " !": "!", " ,": ",", " ' ": "'", " n't": "n't"}
CLEANED |= {f" {ending}": ending for ending in ("'m", "'s", "'ve", "'re")}
"""What transformers replaces, one after the other, where clean_up_tokenization_spaces is set."""

OPEN = ("", "'", "n", "n'", "v", "r", "'v", "'r")
"""A last word that what comes next may yet tie to what is before it."""


def clean_up(text: str) -> str:
    """Return a text without the spaces before marks and endings that cutting it into words has left."""
    for found, instead in CLEANED.items():
        text = text.replace(found, instead)
    return text


class Cleaner:
    """`clean_up` of a text that arrives in pieces."""

    def __init__(self) -> None:
        self._held = ""

    def push(self, text: str) -> str:
        self._held += text
        end = len(self._held)
        while end and self._held[:end].rsplit(" ", 1)[-1] in OPEN:
            end = self._held.rfind(" ", 0, end) if " " in self._held[:end] else 0
        done, self._held = self._held[:end], self._held[end:]
        return clean_up(done)

    def flush(self) -> str:
        done, self._held = self._held, ""
        return clean_up(done)
