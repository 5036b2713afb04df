"""An example as token ids: which of them count in the loss, and where the prompt ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lucidlm.tokenize.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedExample:
    """A prompt and its target.

    Parameters
    ----------
    ids: (T,) int32, prompt and target.
    counted: (T,) bool, the tokens that count in the loss.
    prompt: how many of the tokens are the prompt.
    left_out: how many tokens (or, of a conversation, turns) were left out for want of room.
    """

    ids: np.ndarray
    counted: np.ndarray
    prompt: int
    left_out: int = 0

    @property
    def prefix(self) -> int:
        """How many tokens are before the first that counts; with prefix attention these all attend to each other."""
        return int(self.counted.argmax()) if self.counted.any() else self.prompt

    def window(self, start: int, size: int) -> TokenizedExample:
        """Return `size` tokens from `start`, or fewer at the end, without a prompt."""
        return TokenizedExample(self.ids[start : start + size], self.counted[start : start + size], 0)


def join_parts(
    parts: Sequence[tuple[Sequence[int], bool]], prompt: int | None = None, left_out: int = 0
) -> TokenizedExample:
    """Join stretches of ids, each with whether they count in the loss.

    `prompt` is how many of the *parts* make up the prompt; None: those before the first that counts.
    """
    if prompt is None:
        prompt = next((place for place, (_, counts) in enumerate(parts) if counts), len(parts))
    ids = np.fromiter((token for part, _ in parts for token in part), dtype=np.int32)
    counted = np.repeat([counts for _, counts in parts], [len(part) for part, _ in parts])
    return TokenizedExample(ids, counted.astype(bool), sum(len(part) for part, _ in parts[:prompt]), left_out)


def tokenize_pairs(
    pairs: Sequence[tuple[str, str]],
    tokenizer: Tokenizer,
    max_tokens: int,
    *,
    before: str = "",
    between: str = "",
    source_share: float = 0.5,
) -> list[TokenizedExample]:
    """Tokenize pairs: `before`, source, `between`, target, end of text; an empty target is left to be generated.

    The tokenizer's `prefix` comes first.

    Parameters
    ----------
    max_tokens: the most tokens that are read.
    between: a text; an empty one is the end-of-text token, which no text can contain.
    source_share: how much of the room the source may take; of a longer one the beginning is kept. A target that does
        not fit into what is left is cut, and has no end.
    """
    first = [*tokenizer.prefix, *tokenizer.encode(before)]
    second = tokenizer.encode(between) or [tokenizer.eos_id]
    most = max(1, int(max_tokens * source_share) - len(first) - len(second))
    sources = tokenizer.encode_batch([source for source, _ in pairs])
    targets = tokenizer.encode_batch([target for _, target in pairs])
    found = []
    for source, target in zip(sources, targets, strict=True):
        prompt = [*first, *source[:most], *second]
        answer = [*target, tokenizer.eos_id] if target else []
        # The last token is predicted but never read, so it may stand just past the room.
        parts = [(prompt, False), (answer[: max_tokens + 1 - len(prompt)], True)]
        found.append(join_parts(parts, 1, max(0, len(source) - most)))
    return found
