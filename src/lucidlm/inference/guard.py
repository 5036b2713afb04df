"""What watches texts while they are written: nothing of them is released before it has passed."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence

from lucidlm.core.errors import InputError, LucidError

STRETCH = 32
"""Tokens after which a text is judged that has come to no end of a sentence."""

CUT = "cut off: what would have come next does not pass the guard"
"""What is told where a text ends for that."""

SENTENCE_END = re.compile(r"""[.!?…]["'”’)\]]*(?=\s)|[。！？\n]["”’」』）]*""")

HALF_WORD = re.compile(r"[^\W\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+\Z")
"""The last word of a text that may go on, in scripts that have words."""


class Guard(ABC):
    """Judges texts. It may be asked from several threads at a time."""

    @abstractmethod
    def refusals(self, texts: Sequence[tuple[str, int]]) -> list[str | None]:
        """Return why each text does not pass, None if it does.

        Parameters
        ----------
        texts: each with the number of its first characters that have passed before.

        Raises
        ------
        LucidError: they cannot be judged, so none of them passes.
        """

    def verdicts(self, texts: Sequence[tuple[str, int]]) -> list[str | LucidError | None]:
        """Return what `refusals` does; what cannot be judged holds up no other text: its verdict is the error."""
        try:
            return list(self.refusals(texts))
        except LucidError as error:
            return [error] if len(texts) == 1 else [verdict for text in texts for verdict in self.verdicts([text])]

    def admit(self, prompts: Sequence[str]) -> None:
        """Let prompts pass.

        Raises
        ------
        InputError: one does not.
        LucidError: they cannot be judged.
        """
        for number, refusal in enumerate(self.refusals([(prompt, 0) for prompt in prompts]), 1):
            if refusal is not None:
                where = f"prompt {number}" if len(prompts) > 1 else "the prompt"
                raise InputError(f"does not pass the guard {refusal}", where=where, fix="Say it otherwise.")


def stretch_end(text: str, tokens: int) -> int | None:
    """Return after how many characters of a text that goes on it is to be judged next; None: not yet.

    That is where its last whole sentence ends; of many tokens without one, where the last whole word does.

    Parameters
    ----------
    text: what has not been judged.
    tokens: how many tokens it is of.
    """
    sentences = [found.end() for found in SENTENCE_END.finditer(text)]
    if sentences and text[: sentences[-1]].strip():
        return sentences[-1]
    if tokens < STRETCH or not text.strip():
        return None
    half = HALF_WORD.search(text)
    words = text[: half.start()] if half is not None else text
    return len(words) if words.strip() else len(text)
