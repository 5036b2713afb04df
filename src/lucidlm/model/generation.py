"""How a language model writes unless it is told otherwise: what `generation_config.json` says, in transformers' words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lucidlm.core.errors import InputError
from lucidlm.core.io import read_json

GENERATION_CONFIG = "generation_config.json"

TEMPERATURE, MIN_P = 0.8, 0.05
"""How models that were trained here are sampled: a little sharper than they say, without the long tail, where small models
say what makes no sense."""

ENDS = "eos_token_id"
WRITTEN_ANEW = {ENDS, "bos_token_id", "pad_token_id", "transformers_version", "_from_model_config"}
"""Fields that are not kept as they were: the tokenizer says them, or whoever writes the file."""


@dataclass(frozen=True)
class GenerationDefaults:
    """What a model directory says of how its model writes.

    Parameters
    ----------
    ends: the tokens that end a text, besides the one that its tokenizer names.
    fields: the rest of generation_config.json.
    """

    ends: tuple[int, ...] = ()
    fields: Mapping[str, Any] = field(
        default_factory=lambda: {"do_sample": True, "temperature": TEMPERATURE, "min_p": MIN_P}
    )

    def to_json(self, ids: Mapping[str, int]) -> dict[str, Any]:
        """Return what generation_config.json holds; `ids` are the control tokens that the tokenizer names."""
        ends = [*self.ends]
        if (named := ids.get(ENDS)) is not None and named not in ends:
            ends.append(named)
        return {**self.fields, **ids, **({ENDS: ends if len(ends) > 1 else ends[0]} if ends else {})}


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
