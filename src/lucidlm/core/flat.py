"""Settings by one name each: `learning_rate` instead of `loop.optimizer.learning_rate`.

A flat name is the name of a field, wherever in a configuration it stands. Where several fields have one name, the outer
one has it; of those equally deep none has it, and a table of names says what they are called.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from lucidlm.core.config import Config, read_yaml
from lucidlm.core.errors import InputError

C = TypeVar("C", bound=Config)


def flat_names(kind: type[Config], names: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the path of every field of a configuration, `loop.optimizer.learning_rate`, by its flat name.

    Parameters
    ----------
    kind: its class; the fields of its variants are its too.
    names: paths by the names that fields have instead of, or beside, their own.
    """
    found = dict(names or {})
    seen = set(found)
    level: list[tuple[str, type[BaseModel]]] = [("", one) for one in kind.variants()]
    while level:
        fields = {
            prefix + name: (name, field.annotation)
            for prefix, group in level
            for name, field in group.model_fields.items()
        }
        alike = Counter(name for name, _ in fields.values())
        found |= {name: path for path, (name, _) in fields.items() if alike[name] == 1 and name not in seen}
        seen |= alike.keys()
        level = [
            (f"{path}.", inner)
            for path, (_, inner) in fields.items()
            if isinstance(inner, type) and issubclass(inner, BaseModel)
        ]
    return found


def paths_of(kind: type[Config], settings: Mapping[str, Any], names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the values of settings by their paths instead of their flat names: {"loop.seed": 1} for {"seed": 1}.

    Raises
    ------
    InputError: there is no setting of some name; the nearest one is named.
    """
    known = flat_names(kind, names)
    require_known(settings, known)
    return {known[name]: value for name, value in settings.items()}


def require_known(names: Iterable[str], known: Collection[str]) -> None:
    """Check that all `names` are among the `known` ones.

    Raises
    ------
    InputError: one is not; the nearest one that is known is named.
    """
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.5)
            fix = f"Did you mean {near[0]}?" if near else f"Known are {', '.join(sorted(known))}."
            raise InputError("there is no such setting", where=name, fix=fix)


def flattened(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested settings by their paths, ("loop.seed", 1) for {"loop": {"seed": 1}}."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def resolve(kind: type[C], file: str | Path | None, paths: Mapping[str, Any]) -> C:
    """Return the configuration in a YAML file, if there is one, with the values at `paths` ("loop.seed") over it.

    Raises
    ------
    InputError: the file or a value is wrong; fields that are missing are named.
    """
    fields = {} if file is None else read_yaml(file)
    # Whole groups first, so that a value of one of their fields wins.
    for path, value in sorted(paths.items(), key=lambda item: item[0].count(".")):
        *parents, last = path.split(".")
        inner = fields
        for parent in parents:
            inner[parent] = inner = dict(inner.get(parent) or {})
        inner[last] = value
    return kind(**fields) if file is None else kind.parse(fields, where=file)


def resumed(kind: type[C], file: Path, paths: Mapping[str, Any]) -> C:
    """Return the configuration in `file`, by which a run goes on; the values at `paths` may repeat it.

    Raises
    ------
    InputError: there is no such run, or a value is another: a run keeps the settings it was started with.
    """
    config = kind.load(file)
    try:
        same = resolve(kind, file, paths) == config
    except InputError:  # they are no settings of this run at all: another task's, say
        same = False
    if not same:
        raise InputError(
            "was started with other settings than these",
            where=file.parent,
            fix="To resume it give the same settings again, or none but the directory.",
        )
    return config
