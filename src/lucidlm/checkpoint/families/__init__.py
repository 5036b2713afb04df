"""Model families, one short file each: the fields of their config.json and the names of their weights.

`rotary` has what the families with rotary positions share.
"""

from __future__ import annotations

from lucidlm.checkpoint.families.bert import BERT
from lucidlm.checkpoint.families.eurobert import EUROBERT
from lucidlm.checkpoint.families.gpt2 import GPT2
from lucidlm.checkpoint.families.llama import LLAMA, MISTRAL
from lucidlm.checkpoint.families.qwen2 import QWEN2
from lucidlm.checkpoint.families.qwen3 import QWEN3
from lucidlm.checkpoint.family import Family
from lucidlm.core.errors import InputError
from lucidlm.core.registry import Registry
from lucidlm.model.config import ModelConfig

OWN_MODEL_TYPE = "lucidlm"
"""The `model_type` of architectures that belong to no family."""

families: Registry[Family] = Registry("family")
"""By the `model_type` of config.json; other packages add theirs by entry points in the group `lucidlm.family`."""
for _family in (BERT, EUROBERT, GPT2, LLAMA, MISTRAL, QWEN2, QWEN3):
    families.register(_family.model_type)(_family)


def family_named(name: object, where: str) -> Family:
    """Return the family of a config.json's `model_type`.

    Raises
    ------
    InputError: it is not known.
    """
    if not isinstance(name, str) or name not in families:
        raise InputError(
            f"model type {name!r} is not known to this version of lucidlm",
            where=where,
            fix=f"Known are {', '.join(families)}.",
        )
    return families.get(name)


def family_of(config: ModelConfig) -> Family | None:
    """Return the family that can express `config`; None if only this package can."""
    return next((family for family in map(families.get, families) if family.fits(config)), None)
