"""How a language model writes unless it is told otherwise: what `generation_config.json` says, in transformers' words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TEMPERATURE, MIN_P = 0.8, 0.05
"""How models that were trained here are sampled: a little sharper than they say, without the long tail, where small models
say what makes no sense."""

ENDS = "eos_token_id"


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
