"""Options that several commands have beside their configuration, and how flags and a file become one configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from lucidlm.core.errors import InputError

if TYPE_CHECKING:
    from lucidlm.core.config import Config as Settings

Out = Annotated[Path | None, typer.Option(help="Directory to write; it must be new or empty.", show_default=False)]
Config = Annotated[Path | None, typer.Option(help="Replay a saved configuration (YAML); flags given as well win.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")]
TextField = Annotated[str | None, typer.Option(help="Short for --field text=….")]
LabelField = Annotated[str | None, typer.Option(help="Short for --field label=….")]
Seed = Annotated[int | None, typer.Option(help="What all randomness is drawn from.")]

S = TypeVar("S", bound="Settings")
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


def resolve(kind: type[S], file: Path | None, flags: dict[str, Any]) -> S:
    """Return the configuration in `file`, if any, with `flags` over it; a flag "a.b" is field b of field a.

    Raises
    ------
    InputError: the file or a value in it or among the flags is wrong; fields that are missing are named.
    """
    from lucidlm.core.config import read_yaml

    fields = {} if file is None else read_yaml(file)
    for path, value in flags.items():
        *parents, last = path.split(".")
        inner = fields
        for parent in parents:
            inner[parent] = inner = dict(inner.get(parent) or {})
        inner[last] = value
    return kind(**fields) if file is None else kind.parse(fields, where=file)


def resumed(kind: type[S], file: Path, flags: dict[str, Any]) -> S:
    """Return the configuration in `file`, by which a run goes on; `flags` may repeat it.

    Raises
    ------
    InputError: there is no such run, or a flag says something else: a run keeps the settings it was started with.
    """
    config = kind.load(file)
    if resolve(kind, file, flags) != config:
        raise InputError(
            "was started with other settings than the flags say",
            where=file.parent,
            fix="With --resume give the same flags again, or none but --out.",
        )
    return config


def required(value: T | None, option: str) -> T:
    """Return `value`.

    Raises
    ------
    InputError: it was not given.
    """
    if value is None:
        raise InputError("is needed", where=option, fix="See --help for examples.")
    return value
