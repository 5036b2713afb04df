"""Tokens without a row in the model's embedding: some tokenizers have more tokens than their model has rows."""

from __future__ import annotations

from collections.abc import Iterable

from lucidlm.core.errors import InputError
from lucidlm.tokenize.tokenizer import Tokenizer


def refuse_beyond(ids: Iterable[int], vocab_size: int, tokenizer: Tokenizer, where: str) -> None:
    """Refuse token ids from `vocab_size` on, which a model with so many rows cannot read.

    Raises
    ------
    InputError: there is one; it is named.
    """
    if tokenizer.vocab_size > vocab_size and (beyond := int(max(ids, default=0))) >= vocab_size:
        raise InputError(
            f"holds the token {tokenizer.core.id_to_token(beyond)!r} (number {beyond:,}), and the model has rows for "
            f"{vocab_size:,} tokens only",
            where=where,
            fix="Leave it out, or use the tokenizer that the model was trained with.",
        )


def padding(tokenizer: Tokenizer, vocab_size: int) -> int:
    """Return the padding token, or 0 if the model has no row for it; attention masks it out."""
    return tokenizer.pad_id if tokenizer.pad_id < vocab_size else 0
