"""Which tokens end a text."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from lucidlm.core.errors import InputError
from lucidlm.tokenize.chat_template import own_template, template_of
from lucidlm.tokenize.tokenizer import Tokenizer


def ends_of(tokenizer: Tokenizer, said: Collection[int], vocab_size: int) -> frozenset[int]:
    """Return the tokens that end a text: the tokenizer's, those that the model's files name, the end of a turn in the
    tokenizer's own chat template.

    Parameters
    ----------
    said: see `lucidlm.model.generation.GenerationDefaults`.
    vocab_size: of the model, which can write no others.
    """
    turn = end_of_turn(tokenizer)
    found = {tokenizer.eos_id, *said, *([] if turn is None else [turn])}
    return frozenset(index for index in found if 0 <= index < vocab_size)


@lru_cache(maxsize=4)
def end_of_turn(tokenizer: Tokenizer) -> int | None:
    """Return the token that the tokenizer's own chat template ends the assistant's turns with, if it does."""
    try:
        return None if own_template(tokenizer) is None else template_of(tokenizer).end
    except InputError:  # a template that fails is of no matter to texts that are no conversation
        return None
