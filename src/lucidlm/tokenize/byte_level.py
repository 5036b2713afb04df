"""Byte-level BPE as it is made here: the characters that stand for bytes, and the pieces that tokens do not reach across."""

from __future__ import annotations

from collections.abc import Iterable

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers

PIECES = "|".join(
    (
        r"['’](?i:[sdmt]|ll|re|ve)\b",  # the endings of English contractions
        r" ?[\p{L}\p{M}&&[^\p{Han}]]+",  # a word in any script but Han, with the space before it
        r"\p{Han}+",  # a run of Chinese characters
        r"\p{N}{1,3}",  # digits, three at most, so that numbers share their pieces
        r" ?[^\s\p{L}\p{N}\p{Han}]+[\r\n]*",  # punctuation and symbols, with the end of line after them
        r"\s*[\r\n]+",  # blank lines
        r"\s+(?!\S)",  # spaces, but for the last one before a word
        r"\s+",
    )
)
"""What a token may not reach across: the pieces of a text that BPE merges within."""


def _byte_alphabet() -> dict[str, int]:
    """Return the byte each character of a byte-level token stands for (Radford et al. 2019).

    Printable Latin-1 characters stand for themselves, the other bytes, in order, for the characters from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


BYTE_OF = _byte_alphabet()
CHARACTER_OF = {byte: character for character, byte in BYTE_OF.items()}


def byte_level(model: models.BPE) -> tokenizers.Tokenizer:
    """Return a tokenizer over bytes, none of whose tokens reaches beyond a piece."""
    core = tokenizers.Tokenizer(model)
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PIECES), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    core.decoder = decoders.ByteLevel()
    return core


def merges_of_characters(characters: Iterable[str]) -> list[tuple[str, str]]:
    """Return the merges that put characters together out of their bytes, from the first byte on.

    The replacement character, which broken bytes decode to, is always among them: without any merge llama.cpp would not
    open the tokenizer.
    """
    spelt = ("".join(CHARACTER_OF[byte] for byte in one.encode()) for one in sorted({*characters, "\ufffd"}))
    return list(dict.fromkeys((one[:end], one[end]) for one in spelt for end in range(1, len(one))))
