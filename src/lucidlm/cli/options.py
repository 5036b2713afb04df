"""Options that several commands share, and how flags and a configuration file become one configuration."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from lucidlm.core.errors import InputError

if TYPE_CHECKING:
    from lucidlm.core.config import Config as Settings


class OnError(StrEnum):
    """What to do with a record that cannot be used."""

    stop = "stop"
    skip = "skip"


class Switch(StrEnum):
    """A choice that may be left to the program."""

    auto = "auto"
    on = "on"
    off = "off"


class OptimizerName(StrEnum):
    """How weights follow their gradients."""

    muon = "muon"
    adamw = "adamw"


class Precision(StrEnum):
    """The number format of matrix products."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


Out = Annotated[Path | None, typer.Option(help="Directory to write; it must be new or empty.", show_default=False)]
Config = Annotated[Path | None, typer.Option(help="Replay a saved configuration (YAML); flags given as well win.")]
Encoding = Annotated[str | None, typer.Option(help="How the text is encoded: utf-8, gb18030, latin-1 …")]
OnErrorOption = Annotated[
    OnError | None, typer.Option(help="At a record that cannot be used: stop, or skip and count it.")
]
Minutes = Annotated[float | None, typer.Option(help="Stop after so many minutes, the learning rate timed to it.")]
MaxSteps = Annotated[int | None, typer.Option(help="Stop after so many steps.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
PrecisionOption = Annotated[Precision | None, typer.Option(help="auto takes bf16 on GPUs and fp32 on CPUs.")]
Seed = Annotated[int | None, typer.Option(help="What all randomness is drawn from.")]
Fields = Annotated[
    list[str] | None,
    typer.Option("--field", metavar="NAME=FIELD", help="A field of the task and its name in the data."),
]
Optimizer = Annotated[OptimizerName | None, typer.Option(help="muon (with AdamW for what is no matrix) or adamw.")]
LearningRate = Annotated[float | None, typer.Option(help="Peak learning rate; Muon moves matrices 10/3 times as far.")]

S = TypeVar("S", bound="Settings")
T = TypeVar("T")


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """Return the flags that were given, as plain values."""
    plain = {name: value.value if isinstance(value, StrEnum) else value for name, value in flags.items()}
    return {name: value for name, value in plain.items() if value is not None}


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
        names[name] = field
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
