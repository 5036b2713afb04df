"""Options that several commands share, and how flags and a configuration file become one configuration."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from lucidlm.core.errors import InputError


class OnError(StrEnum):
    """What to do with a record that cannot be used."""

    stop = "stop"
    skip = "skip"


class Switch(StrEnum):
    """A choice that may be left to the program."""

    auto = "auto"
    on = "on"
    off = "off"


class Precision(StrEnum):
    """The number format of matrix products."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


Out = Annotated[Path | None, typer.Option(help="Directory to write; it must be new or empty.", show_default=False)]
Config = Annotated[Path | None, typer.Option(help="Replay a saved configuration (YAML); flags given as well win.")]
OnErrorOption = Annotated[
    OnError | None, typer.Option(help="At a record that cannot be used: stop, or skip and count it.")
]
Minutes = Annotated[float | None, typer.Option(help="Stop after so many minutes, the learning rate timed to it.")]
MaxSteps = Annotated[int | None, typer.Option(help="Stop after so many steps.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
PrecisionOption = Annotated[Precision | None, typer.Option(help="auto takes bf16 on GPUs and fp32 on CPUs.")]
Seed = Annotated[int | None, typer.Option(help="What all randomness is drawn from.")]
LearningRate = Annotated[float | None, typer.Option(help="Peak learning rate.")]

C = TypeVar("C")


def nested(flags: dict[str, Any]) -> dict[str, Any]:
    """Return the flags that were given, those called "a.b" as `{"a": {"b": value}}`."""
    fields: dict[str, Any] = {}
    for path, value in flags.items():
        if value is None:
            continue
        *parents, last = path.split(".")
        inner = fields
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value.value if isinstance(value, StrEnum) else value
    return fields


def resolve(kind: type[C], file: Path | None, flags: dict[str, Any]) -> C:
    """Return the configuration in `file`, if any, with `flags` (nested dicts) laid over it.

    Raises
    ------
    InputError: the file or a value in it or among the flags is wrong; fields that are missing are named.
    """
    from lucidlm.core.config import read_yaml

    fields = {} if file is None else read_yaml(file)
    merged = _merge(fields, flags)
    if file is None:
        return kind(**merged)
    return kind.parse(merged, where=file)  # pyright: ignore[reportAttributeAccessIssue]


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def required(value: C | None, option: str) -> C:
    """Return `value`.

    Raises
    ------
    InputError: it was not given.
    """
    if value is None:
        raise InputError("is needed", where=option, fix="See --help for examples.")
    return value
