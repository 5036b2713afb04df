"""What narrows or shifts the choice of a sequence's next token, token after token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from lucidlm.core.errors import InputError


class LogitsProcessor:
    """Changes what a sequence may go on with. Each belongs to one sequence, and hears of all its tokens.

    Where one raises `LucidError`, the sequence ends, and whoever wanted it is told.
    """

    def process(self, logits: Tensor) -> None:
        """Change the logits (V,), fp32, of the next token, in place."""

    def settle(self, token: int, left: int) -> int:
        """Return the next token: the one that was chosen, or another in its place.

        Parameters
        ----------
        left: the most tokens that may follow it.
        """
        return token

    def push(self, token: int) -> None:
        """Hear which token was added."""

    def fork(self) -> LogitsProcessor:
        """Return the same for another text that goes on from here, as those of beam search do.

        Raises
        ------
        InputError: that cannot be had.
        """
        raise InputError(
            "beam search writes no texts that are held to a form or guided",
            where="num_beams",
            fix="Leave out one of the two.",
        )

    @property
    def complete(self) -> bool:
        """Whether nothing can follow, so that the text ends here."""
        return False


MakeProcessors = Callable[[list[int], frozenset[int]], Sequence[LogitsProcessor]]
"""Makes the processors of one sequence, given its prompt and the tokens that end its text."""
