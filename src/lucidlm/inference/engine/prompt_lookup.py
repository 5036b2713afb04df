"""Drafting what comes next by what came before, so that several tokens are read in a step.

Where the last tokens stood earlier in the text, what followed them there is likely to follow here: in answers that quote,
in code, and wherever a text repeats itself (prompt lookup decoding, Saxena 2023; speculative decoding, Leviathan et al.
2023, arXiv:2211.17192). A draft is kept as far as the model chooses the same tokens, so the text is what it would be
without, whatever the sampling.
"""

from __future__ import annotations

MATCHED = 3
"""How many tokens have to be the same before a draft is made."""

SHORTEST, LONGEST = 2, 8
"""Tokens of a draft: on two cores a step with 8 tokens takes 1.6 times as long as one with a token."""

PAUSE = 8, 64
"""For how many tokens nothing is drafted after a draft that was wholly wrong: doubled each time, up to the second."""


class Drafter:
    """Drafts for one text, longer ones the better they have gone, and none for a while after one that was wholly wrong."""

    def __init__(self) -> None:
        self._length, self._pause, self._resume = 4, PAUSE[0], 0

    def guess(self, tokens: list[int], most: int) -> list[int]:
        """Return what may follow `tokens`, the whole text so far: `most` tokens at most, or none."""
        raise NotImplementedError

    def draft(self, tokens: list[int], most: int) -> list[int]:
        """Return a draft of what follows `tokens`, the whole text so far: `most` tokens at most, often none."""
        most = min(self._length, most)
        return self.guess(tokens, most) if most > 0 and len(tokens) >= self._resume else []

    def learn(self, length: int, drafted: int, accepted: int) -> None:
        """Take up that of `drafted` tokens the model chose the first `accepted` too, in a text of `length` tokens by now."""
        if accepted == drafted:
            self._length, self._pause = min(LONGEST, self._length + 2), PAUSE[0]
        elif not accepted:
            self._length, self._resume = SHORTEST, length + self._pause
            self._pause = min(PAUSE[1], 2 * self._pause)


class PromptLookup(Drafter):
    """The places where each three tokens of a text stood last."""

    def __init__(self) -> None:
        super().__init__()
        self._after: dict[tuple[int, ...], int] = {}
        self._indexed = MATCHED - 1  # places up to here have been noted

    def guess(self, tokens: list[int], most: int) -> list[int]:
        """See `Drafter.guess`."""
        for place in range(self._indexed + 1, len(tokens)):  # the last three are looked up before they are noted
            self._after[tuple(tokens[place - MATCHED : place])] = place
        self._indexed = max(self._indexed, len(tokens) - 1)
        place = self._after.get(tuple(tokens[-MATCHED:]))
        return [] if place is None else tokens[place : place + most]
