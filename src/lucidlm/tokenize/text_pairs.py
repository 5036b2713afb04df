"""Two texts that a model reads together: what stands around them, and how they are cut where they do not fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tokenizers
from tokenizers import processors

from lucidlm.tokenize.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class PairFrame:
    """The special tokens before, between and after two texts: `[CLS] first [SEP] second [SEP]` with BERT's tokenizer."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> PairFrame:
        """Return what the tokenizer's own post-processor puts around a pair."""
        found = tokenizer.core.encode("a", "a")
        places = [[place for place, text in enumerate(found.sequence_ids) if text == which] for which in (0, 1)]
        if not all(places):  # it drops the letter
            return cls((), (), ())
        (first, last), (start, end) = ((part[0], part[-1] + 1) for part in places)
        return cls(tuple(found.ids[:first]), tuple(found.ids[last:start]), tuple(found.ids[end:]))

    @property
    def size(self) -> int:
        """How many special tokens there are."""
        return len(self.before) + len(self.between) + len(self.after)

    def joined(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the ids of two texts with what stands around them, int32 (T,)."""
        return np.concatenate([self.before, first, self.between, second, self.after]).astype(np.int32)


def with_pairs(tokenizer: Tokenizer) -> Tokenizer:
    """Return the tokenizer with an end-of-text token between two texts, unless it puts something there already.

    What stands before and after one text stands before and after the two.
    """
    if PairFrame.of(tokenizer).between:
        return tokenizer
    core = tokenizers.Tokenizer.from_str(tokenizer.core.to_str())
    ids = (*tokenizer.prefix, tokenizer.eos_id, *tokenizer.suffix)
    named = {index: str(core.id_to_token(index)) for index in ids}
    before, after = ([named[index] for index in part] for part in (tokenizer.prefix, tokenizer.suffix))
    core.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", named[tokenizer.eos_id], "$B:1", *(f"{token}:1" for token in after)],
        special_tokens=[(token, index) for index, token in named.items()],
    )
    return Tokenizer(core, tokenizer.config)


def fitting(first: int, second: int, room: int) -> tuple[int, int]:
    """Return how many tokens of two texts of these lengths are kept in `room`: the longer one is cut, at last both.

    As transformers' `truncation="longest_first"`.
    """
    if first + second <= room:
        return first, second
    half = room // 2
    if min(first, second) > half:
        return (half, room - half) if first <= second else (room - half, half)
    return (first, room - first) if first <= second else (room - second, second)
