"""Checks of arguments that a person passes: the wrong type is named, with what was given and what is wanted."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike, fspath
from typing import Any

from lucidlm.core.errors import InputTypeError

LONGEST = 60
"""Characters of a value that a message shows."""


def require_text(value: Any, name: str) -> str:
    """Return `value`, a string.

    Raises
    ------
    InputTypeError: it is something else.
    """
    if isinstance(value, str):
        return value
    raise wrong_type(value, name, "Pass one text, a string.")


def require_texts(value: Any, name: str) -> list[str]:
    """Return the strings in `value`, a list or another iterable of them.

    Raises
    ------
    InputTypeError: it is one string, which would be read letter by letter, or something else.
    """
    if isinstance(value, str):
        raise wrong_type(value, name, "Pass a list of texts: put it in [ ].")
    if not isinstance(value, Iterable) or isinstance(value, bytes):
        raise wrong_type(value, name, "Pass a list of texts.")
    texts = list(value)
    for index, text in enumerate(texts):
        require_text(text, f"{name}[{index}]")
    return texts


def require_path(value: Any, name: str) -> str:
    """Return `value`, a string or a path, as a string.

    Raises
    ------
    InputTypeError: it is something else.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, PathLike) and isinstance(path := fspath(value), str):
        return path
    raise wrong_type(value, name, "Pass a path or the name of a source, as a string.")


def require_count(value: Any, name: str) -> int:
    """Return `value`, a whole number.

    Raises
    ------
    InputTypeError: it is something else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise wrong_type(value, name, "Pass a whole number.")


def wrong_type(value: Any, name: str, fix: str) -> InputTypeError:
    """Return the error for an argument of the wrong type."""
    shown = repr(value)
    shown = shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}…"
    return InputTypeError(f"is {shown}, of type {type(value).__name__}", where=name, fix=fix)
