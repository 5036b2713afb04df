"""Characters that a tokenizer has no token for: they become its unknown token, or are lost without a trace.

Tokenizers over bytes have none. BPE looks at characters one by one; WordPiece makes a whole word unknown and Unigram a run
of characters, so with these the texts that hold the unknown token are looked through.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from typing import Any

import tokenizers
from pydantic import BaseModel
from tokenizers import models

from lucidlm.tokenize.byte_level import BYTE_OF
from lucidlm.tokenize.tokenizer import Tokenizer

SHOWN = 20
"""Characters of the first unknown stretch that are shown."""
BATCH = 1000
"""Texts that are encoded at once."""


class Unknown(BaseModel, frozen=True):
    """How much of some texts is unknown to a tokenizer.

    Parameters
    ----------
    characters, of: how many are unknown, of how many in all; of a word that becomes one unknown token, all of its.
    first, where: the first stretch that is unknown, and the place of its text; empty where there is none.
    """

    characters: int = 0
    of: int = 0
    first: str = ""
    where: str = ""

    def __add__(self, other: Unknown) -> Unknown:
        """Return what both count, the first stretch being that of `self` if it has one."""
        found = self if self.characters else other
        return Unknown(
            characters=self.characters + other.characters, of=self.of + other.of, first=found.first, where=found.where
        )

    def __str__(self) -> str:
        """Say it in a line."""
        place = f" at {self.where}" if self.where else ""
        return (
            f"{self.characters:,} of {self.of:,} characters ({100 * self.characters / max(1, self.of):.1f} %) are unknown "
            f"to the tokenizer, first: {self.first}{place}"
        )


def count_unknown(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    places: Sequence[str] | None = None,
    encoded: Sequence[Collection[int]] | None = None,
) -> Unknown:
    """Count the characters of `texts` that `tokenizer` has no token for.

    Parameters
    ----------
    places: where each text was read, `file:line`; None: nobody knows.
    encoded: the ids of each text; None: texts are encoded if that is needed.
    """
    stretches = _stretches(tokenizer, texts, encoded)
    total = Unknown(of=sum(map(len, texts)))
    for row, found in stretches:
        place = "" if places is None else places[row]
        total += Unknown(characters=sum(map(len, found)), first=_shown(found[0]), where=place)
    return total


def spells_bytes(tokenizer: Tokenizer) -> bool:
    """Return whether there is a token for every byte, so that no character can be unknown."""
    if tokenizer.byte_level:
        return all(tokenizer.core.token_to_id(token) is not None for token in BYTE_OF)
    fallback = getattr(tokenizer.core.model, "byte_fallback", False)
    return fallback and all(tokenizer.core.token_to_id(f"<0x{byte:02X}>") is not None for byte in range(256))


def _stretches(
    tokenizer: Tokenizer, texts: Sequence[str], encoded: Sequence[Collection[int]] | None
) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each text that is not wholly known, and what of it is unknown."""
    core = tokenizer.core
    if spells_bytes(tokenizer):
        return
    if isinstance(core.model, models.BPE):
        lost = cache(_lost_by(core))
        for row, text in enumerate(texts):
            if gone := set(filter(lost, set(text))):
                yield row, [character for character in text if character in gone]
        return
    unknown = _unknown_id(core)
    if encoded is None:
        batches = (texts[start : start + BATCH] for start in range(0, len(texts), BATCH))
        encoded = [ids for batch in batches for ids in tokenizer.encode_batch(batch)]
    for row, ids in enumerate(encoded):
        if unknown in ids:
            found = tokenizer.encodings([texts[row]])[0]
            spans = [
                texts[row][slice(*span)] for span, one in zip(found.offsets, found.ids, strict=True) if one == unknown
            ]
            # A space before it is a part of some tokens, but it is not what is unknown.
            yield row, [span.strip() or span for span in spans]


def _lost_by(core: tokenizers.Tokenizer) -> Callable[[str], bool]:
    """Return what says whether a BPE has no token for a character, nor for the bytes it is spelt in."""
    model: Any = core.model
    vocabulary, added = core.get_vocab(), {token.content for token in core.get_added_tokens_decoder().values()}
    before, after = model.continuing_subword_prefix or "", model.end_of_word_suffix or ""

    def known(symbol: str) -> bool:
        if any(form in vocabulary for form in {symbol, before + symbol, symbol + after, before + symbol + after}):
            return True
        return model.byte_fallback and all(f"<0x{byte:02X}>" in vocabulary for byte in symbol.encode())

    def lost(character: str) -> bool:
        if character in added:
            return False
        text = core.normalizer.normalize_str(character) if core.normalizer else character
        pieces = core.pre_tokenizer.pre_tokenize_str(text) if core.pre_tokenizer else [(text, (0, len(text)))]
        # SentencePiece's space may have been put before the character, which then says nothing about it.
        symbols = "".join(piece for piece, _ in pieces)
        return not all(known(symbol) for symbol in symbols if symbol != "▁" or character in " ▁")

    return lost


def _unknown_id(core: tokenizers.Tokenizer) -> int | None:
    """Return the token of what WordPiece or Unigram has no token for."""
    if isinstance(core.model, models.WordPiece):
        return core.token_to_id(core.model.unk_token)
    return json.loads(core.to_str())["model"].get("unk_id")


def _shown(stretch: str) -> str:
    """Return the beginning of a stretch so that it can be seen."""
    seen = "".join(c if c.isprintable() and not c.isspace() else f"U+{ord(c):04X}" for c in stretch[:SHOWN])
    return seen + ("…" if len(stretch) > SHOWN else "")
