"""A tokenizer as llguidance sees it: which bytes each token stands for."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from lucidlm.core.errors import InputError
from lucidlm.core.extras import require_package
from lucidlm.tokenize.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLTokenizer

MARKS = ('"', "}", "]", ")", ">", ",")
"""What ends a text soonest, as far as that can be told from a token alone."""

BETWEEN = ("@", ":", "/", ".", "-", "_")
"""What patterns want between their parts."""

PARTS = ("a", "1", "0", "null", "true")
OTHERS = ("{}", "[]", '""', "{", "[")


def llguidance() -> ModuleType:
    """Return the library that knows which tokens may follow.

    Raises
    ------
    InputError: it is not installed.
    """
    require_package("llguidance", "control")
    return import_module("llguidance")


class Vocabulary:
    """The bytes of a model's tokens.

    Parameters
    ----------
    vocab_size: of the model, which may be larger than the tokenizer's.
    ends: the tokens that end a text.

    Raises
    ------
    InputError: the tokenizer's tokens stand for no bytes of their own.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, ends: Collection[int]) -> None:
        if tokenizer.kind == "wordpiece" or tokenizer.cleans:
            raise InputError(
                "this model's tokens stand for other text in other places, so nothing can hold it to a form",
                where="MODEL",
                fix="Take a model with a byte-level or SentencePiece tokenizer.",
            )
        self.tokenizer, self.vocab_size, self.ends = tokenizer, vocab_size, sorted(ends)

    @cached_property
    def bytes(self) -> list[bytes]:
        """The bytes of each of the model's tokens, as it stands in the midst of a text; none for control tokens."""
        size = min(self.vocab_size, self.tokenizer.vocab_size)
        if self.tokenizer.kind in ("bpe", "characters"):
            found = [self.tokenizer.token_bytes(token) if self._says(token) else b"" for token in range(size)]
        else:
            found = self._read_out(size)
        return found + [b""] * (self.vocab_size - size)

    @cached_property
    def core(self) -> LLTokenizer:
        """The same for llguidance."""
        library = llguidance()
        wrapped = library.TokenizerWrapper(_Wrapped(self))
        return library.LLTokenizer(wrapped, n_vocab=self.vocab_size, eos_token=self.ends)

    @cached_property
    def orders(self) -> list[list[int]]:
        """Tokens that end a text soon, the best first, in orders of which one may lead nowhere."""
        quote, *others = MARKS
        return [
            [token for said in order if (token := self._tokens.get(said.encode())) is not None]
            for order in (
                (*MARKS, *BETWEEN, *PARTS, *OTHERS),
                (quote, *BETWEEN, *PARTS, *others, *OTHERS),
                (quote, *PARTS, *BETWEEN, *others, *OTHERS),
            )
        ]

    @cached_property
    def lateness(self) -> np.ndarray:
        """How late any other token comes when a text is to end soon, (V,) int64: long ones first, spaces last."""
        return np.array([len(said) + self._longest if not said.strip() else -len(said) for said in self.bytes])

    @cached_property
    def marks(self) -> frozenset[int]:
        """The tokens that are `MARKS`."""
        return frozenset(self._tokens[mark.encode()] for mark in MARKS if mark.encode() in self._tokens)

    def spell(self, text: bytes) -> list[int]:
        """Return tokens that stand for `text` in the midst of another, the longest first; bytes without one are left out.

        The tokenizer would take it for the beginning of a text, where some put a space.
        """
        found, start = [], 0
        while start < len(text):
            ends = range(min(len(text), start + self._longest), start, -1)
            end = next((end for end in ends if text[start:end] in self._tokens), None)
            if end is not None:
                found.append(self._tokens[text[start:end]])
            start = start + 1 if end is None else end
        return found

    @cached_property
    def _tokens(self) -> dict[bytes, int]:
        return {said: token for token, said in reversed([*enumerate(self.bytes)]) if said}

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self.bytes), default=0)

    def _says(self, token: int) -> bool:
        return token not in self.ends and self.tokenizer.shows(token) and token != self.tokenizer.unknown_id

    def _read_out(self, size: int) -> list[bytes]:
        """Read each token out behind another, since the first of a text has no space before it."""
        before = next(token for token in range(size) if self._says(token) and not self.tokenizer.is_byte(token))
        skipped = len(self.tokenizer.read_out([before]))
        found = []
        for token in range(size):
            if self._says(token) and self.tokenizer.is_byte(token):
                found.append(bytes([int(str(self.tokenizer.core.id_to_token(token))[3:5], 16)]))
            elif self._says(token):
                found.append(self.tokenizer.read_out([before, token])[skipped:].encode())
            else:
                found.append(b"")
        return found


class _Wrapped:
    """What llguidance asks of a tokenizer."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens = vocabulary.bytes
        self.eos_token_id = vocabulary.ends[0]
        self.bos_token_id = None
        self.special_token_ids = [token for token, said in enumerate(self.tokens) if not said]
        self._spell = vocabulary.spell

    def __call__(self, text: str | bytes) -> list[int]:
        return self._spell(text.encode() if isinstance(text, str) else text)
