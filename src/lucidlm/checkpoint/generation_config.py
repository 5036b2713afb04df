"""`generation_config.json`: how a model writes unless it is told otherwise, read from its directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lucidlm.core.errors import InputError
from lucidlm.core.io import read_json
from lucidlm.model.generation import ENDS, GenerationDefaults

GENERATION_CONFIG = "generation_config.json"

WRITTEN_ANEW = {ENDS, "bos_token_id", "pad_token_id", "transformers_version", "_from_model_config"}
"""Fields that are not kept as they were: the tokenizer says them, or whoever writes the file."""


def read_generation_defaults(directory: Path, config: Mapping[str, Any]) -> GenerationDefaults:
    """Return what the model in `directory` is to write by; `config` are the fields of its config.json.

    Where generation_config.json names ends of text, those in config.json do not count, as in transformers.

    Raises
    ------
    InputError: the file is damaged, or an end is no token's number.
    """
    file = directory / GENERATION_CONFIG
    found = read_json(file) if file.is_file() else {}
    ends = _ends(found, file) or _ends(config, directory / "config.json")
    kept = {name: value for name, value in found.items() if name not in WRITTEN_ANEW and value is not None}
    return GenerationDefaults(ends, kept)


def _ends(fields: Mapping[str, Any], where: Path) -> tuple[int, ...]:
    """Return the ends of text that a file names: a number, or a list of them."""
    found = fields.get(ENDS)
    ids = found if isinstance(found, list) else [] if found is None else [found]
    if not all(type(index) is int for index in ids):
        raise InputError(
            f"{ENDS} is {found!r}, which is neither a token's number nor a list of them",
            where=where,
            fix="Correct it, or leave it out.",
        )
    return tuple(dict.fromkeys(ids))
