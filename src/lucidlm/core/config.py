"""The base of every configuration: a frozen pydantic model that reports mistakes the way a person can use."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from lucidlm.core.errors import InputError
from lucidlm.core.io import write_text

CONFIG = "config.yaml"
"""Where a run leaves its settings, whole, beside what it makes."""


class Config(BaseModel):
    """Immutable settings. Unknown and wrong fields raise `InputError` naming each of them.

    Settings within settings may be given in part: what is left out keeps the default of the field they stand in.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**{name: self._completed(name, value) for name, value in fields.items()})
        except ValidationError as error:
            raise InputError(describe(error), fix="Correct the value and run it again.") from None

    @classmethod
    def _completed(cls, name: str, value: Any) -> Any:
        default = cls.model_fields[name].default if name in cls.model_fields else None
        return default._with(value) if isinstance(value, dict) and isinstance(default, Config) else value

    def _with(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return these settings with `fields` in their place, which within settings may be given in part too."""
        own = dict(self)
        for name, value in fields.items():
            inner = own.get(name)
            own[name] = inner._with(value) if isinstance(value, dict) and isinstance(inner, Config) else value
        return own

    def changed(self, **fields: Any) -> Self:
        """Return a copy in which the given fields have new, checked values."""
        return type(self)(**{**dict(self), **fields})

    @classmethod
    def variants(cls) -> tuple[type[Config], ...]:
        """Return the classes that an instance made by this one's name may have."""
        return (cls,)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a YAML file.

        Raises
        ------
        InputError: the file is missing, is not YAML, or holds a wrong field; file and field are named.
        """
        return cls.parse(read_yaml(path), where=path)

    @classmethod
    def parse(cls, fields: dict[str, Any], where: str | Path) -> Self:
        """Build from plain values that were read from `where`, which errors then name."""
        try:
            return cls(**fields)
        except InputError as error:
            raise InputError(error.what, where=where, fix=error.fix) from None

    def save(self, path: str | Path) -> None:
        """Write as YAML, atomically; `load` reads it back equal."""
        write_text(path, yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises
    ------
    InputError: the file is missing, is not YAML, or holds something other than a mapping.
    """
    try:
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise InputError("file not found", where=path) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"is not valid YAML ({' '.join(str(error).split())})", where=path) from None
    if not isinstance(value, dict) or not all(isinstance(field, str) for field in value):
        raise InputError("should hold a YAML mapping (field: value)", where=path)
    return value


def describe(error: ValidationError) -> str:
    """Return pydantic's findings as one sentence: each field, what is wrong, and the value it had."""
    parts = []
    for finding in error.errors():
        field = ".".join(str(part) for part in finding["loc"])
        message = finding["msg"].removeprefix("Value error, ")
        given = "" if finding["type"] in ("missing", "value_error") else f" (given: {finding['input']!r})"
        parts.append(f"{field}: {message}{given}" if field else f"{message}{given}")
    return "; ".join(parts)
