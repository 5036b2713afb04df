"""Drafting by a smaller model of the same tokenizer, so that the larger one reads several tokens in a step.

The smaller model writes a few tokens greedily, the larger one reads them at once, and they are kept as far as it chooses
the same (speculative decoding, Leviathan et al. 2023, arXiv:2211.17192). The larger model's choice at a place depends on
nothing but its own logits and the place's own random number, so the text is what it would be without, whatever the
sampling.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from lucidlm.inference.engine.backend import Backend, Stretch
from lucidlm.inference.engine.prompt_lookup import LONGEST, Drafter


@dataclass(eq=False)
class _Held:
    """A text that the cache holds: the tokens that were read, and the blocks they are in."""

    blocks: list[int]
    tokens: list[int] = field(default_factory=list)


class DraftModel:
    """A smaller model that drafts for several texts in turn; what it has read of each stays in its cache.

    Parameters
    ----------
    backend: what runs it, with room for one text of `context` tokens at least.
    context: the longest text it can read, in tokens.
    """

    def __init__(self, backend: Backend, context: int) -> None:
        self._backend, self._context = backend, context
        each = -(-context // backend.block_size)
        self._held = [
            _Held(list(range(start, start + each))) for start in range(0, backend.blocks - each + 1, each)
        ]  # the longest unused first

    def draft(self, tokens: list[int], count: int) -> list[int]:
        """Return the `count` tokens that it would write after `tokens`, fewer where its context ends."""
        count = min(count, self._context - len(tokens))
        if count < 1:
            return []
        held, same = self._holder_of(tokens)
        drafted: list[int] = []
        unread = tokens[same:]
        for _ in range(count):
            stretch = Stretch(
                unread, len(tokens) + len(drafted) - len(unread), held.blocks, written=min(1, len(drafted))
            )
            [token] = self._backend.read([stretch]).argmax(-1).tolist()
            drafted.append(token)
            unread = [token]
        held.tokens = tokens + drafted[:-1]
        return drafted

    def _holder_of(self, tokens: list[int]) -> tuple[_Held, int]:
        """Return the place of a text in the cache, and how much of the text has been read there.

        It is the text's own if no more was read after what both have in common than a draft that was refused.
        """
        shared = [_common(held.tokens, tokens[:-1]) for held in self._held]
        place = max(range(len(shared)), key=shared.__getitem__)
        if len(self._held[place].tokens) - shared[place] > LONGEST:
            place = 0
        held = self._held.pop(place)
        self._held.append(held)
        return held, shared[place]


class ModelDrafter(Drafter):
    """What a smaller model drafts for one text."""

    def __init__(self, model: DraftModel) -> None:
        super().__init__()
        self._model = model

    def guess(self, tokens: list[int], most: int) -> list[int]:
        """See `Drafter.guess`."""
        return self._model.draft(tokens, most)


def _common(one: list[int], other: list[int]) -> int:
    """Return how many tokens two texts begin with in common."""
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    return bisect_left(range(1, most + 1), True, key=lambda length: one[:length] != other[:length])
