"""Tokens that a model has no row of its embedding for: some tokenizers were given more than their model learned."""

from __future__ import annotations

from collections.abc import Iterable

from lucidlm.core.errors import InputError
from lucidlm.data.tokenizer import Tokenizer


def refuse_beyond(ids: Iterable[int], vocab_size: int, tokenizer: Tokenizer, where: str) -> None:
    """Refuse token ids from `vocab_size` on, which a model with so many rows cannot read.

    Raises
    ------
    InputError: there is one; it is named.
    """
    if tokenizer.vocab_size > vocab_size and (beyond := max(ids, default=0)) >= vocab_size:
        raise InputError(
            f"holds the token {tokenizer.core.id_to_token(int(beyond))!r} (number {beyond:,}), and the model has rows for "
            f"{vocab_size:,} tokens only",
            where=where,
            fix="Leave it out, or use the tokenizer that the model was trained with.",
        )
