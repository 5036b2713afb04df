"""`generation_config.json`: a model's default sampling and end-of-text tokens, read from its directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lucidlm.core.errors import InputError
from lucidlm.core.io import read_json
from lucidlm.model.generation import ENDS, GenerationDefaults

GENERATION_CONFIG = "generation_config.json"

WRITTEN_ANEW = {ENDS, "bos_token_id", "pad_token_id", "transformers_version", "_from_model_config"}
"""Fields that are not carried over: they come from the tokenizer, or are set when the file is written."""


def read_generation_defaults(directory: Path, config: Mapping[str, Any]) -> GenerationDefaults:
    """Return the generation defaults of the model in `directory`; `config` are the fields of its config.json.

    End-of-text tokens in generation_config.json override those in config.json, as in transformers.

    Raises
    ------
    InputError: the file is damaged, or an end of text is not a token id.
    """
    file = directory / GENERATION_CONFIG
    found = read_json(file) if file.is_file() else {}
    ends = _ends(found, file) or _ends(config, directory / "config.json")
    kept = {name: value for name, value in found.items() if name not in WRITTEN_ANEW and value is not None}
    return GenerationDefaults(ends, kept)


def _ends(fields: Mapping[str, Any], where: Path) -> tuple[int, ...]:
    """Return the ids of a file's end-of-text tokens, given as one number or a list."""
    found = fields.get(ENDS)
    ids = found if isinstance(found, list) else [] if found is None else [found]
    if not all(type(index) is int for index in ids):
        raise InputError(
            f"{ENDS} is {found!r}, which is neither a token's number nor a list of them",
            where=where,
            fix="Correct it, or leave it out.",
        )
    return tuple(dict.fromkeys(ids))
