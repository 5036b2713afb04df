"""Options that several commands have beside their configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from lucidlm.core.errors import InputError

Out = Annotated[Path | None, typer.Option(help="Directory to write; it must be new or empty.", show_default=False)]
Config = Annotated[Path | None, typer.Option(help="Replay a saved configuration (YAML); flags given as well win.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")]
Webhook = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Post a message there when the run ends or fails; LUCIDLM_WEBHOOK keeps it out of ps."
    ),
]
TextField = Annotated[str | None, typer.Option(help="Short for --field text=….")]
LabelField = Annotated[str | None, typer.Option(help="Short for --field label=….")]
Seed = Annotated[int | None, typer.Option(help="What all randomness is drawn from.")]

T = TypeVar("T")


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """Return the flags that were given."""
    return {name: value for name, value in flags.items() if value is not None}


def renamed(pairs: list[str] | None, **shortcuts: str | None) -> dict[str, str] | None:
    """Return the names of fields that `--field NAME=FIELD` and its shortcuts give; None if none is given.

    Raises
    ------
    InputError: an option is not of that form.
    """
    names = {name: field for name, field in shortcuts.items() if field is not None}
    for pair in pairs or ():
        name, equals, field = pair.partition("=")
        if not (name and equals and field):
            raise InputError(f"{pair!r} is not of the form NAME=FIELD", where="--field", fix="Pass text=review, say.")
        if names.setdefault(name, field) != field:
            what = f"{name} is to be read from {names[name]} and from {field}"
            raise InputError(what, where="--field", fix="Name one field of the data for it.")
    return names or None


def required(value: T | None, option: str) -> T:
    """Return `value`.

    Raises
    ------
    InputError: it was not given.
    """
    if value is None:
        raise InputError("is needed", where=option, fix="See --help for examples.")
    return value
