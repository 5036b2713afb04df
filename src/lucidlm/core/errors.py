"""The errors the package raises on purpose; anything else that escapes is a bug of ours."""

from __future__ import annotations

from functools import partial
from pathlib import Path

LONGEST = 1_000
"""Characters: a file's own values are quoted in messages, and may be of any length."""


class LucidError(Exception):
    """Something failed that is not the user's mistake: a full disk, a damaged file, a diverged run.

    Parameters
    ----------
    what: one sentence, no final full stop, saying what is wrong.
    where: the place it was found: a path, `file:line`, or the name of a field or flag.
    fix: one sentence telling the reader what to do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | Path | None = None, fix: str | None = None) -> None:
        self.what = what if len(what) <= LONGEST else f"{what[:LONGEST]} …"
        self.where, self.fix = None if where is None else str(where), fix
        place = f"{self.where}: " if self.where else ""
        advice = f" {fix}" if fix else ""
        super().__init__(f"{place}{self.what}.{advice}")

    def __reduce__(self) -> tuple[partial[LucidError], tuple[str]]:
        """Pickle the parts of the message, so that it is the same when the error comes from another process."""
        return partial(type(self), where=self.where, fix=self.fix), (self.what,)


class InputError(LucidError):
    """What the user passed cannot be used: a flag, a file, a field, a value."""

    exit_code = 2


class InputTypeError(InputError, TypeError):
    """An argument is of a type that cannot be used: a number for a text, one text for a list of them."""
