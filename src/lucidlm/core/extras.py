"""Packages that only some uses need, with the extras of lucidlm that bring them."""

from __future__ import annotations

from importlib.util import find_spec

from lucidlm.core.errors import InputError


def require_package(
    module: str, extra: str | None = None, *, name: str | None = None, where: str | None = None, instead: str = ""
) -> None:
    """Raise an InputError that says how to install a package, unless it is there.

    Parameters
    ----------
    module: what is imported.
    extra: the extra of lucidlm that brings it; None: none does, and it is installed by its own name.
    name: of the package; None: that of the module.
    where: the flag or function that needs it.
    instead: what can be done without it: "write .html", say.
    """
    if find_spec(module) is not None:
        return
    name = name or module
    install = f"Install it: pip install {name if extra is None else repr(f'lucidlm[{extra}]')}"
    fix = f"{install}, or {instead}." if instead else f"{install}."
    raise InputError(f"the package {name} is not installed", where=where, fix=fix)
