"""Families of models: how the config.json and the weights that other software knows map to ours, and back.

A family is a mapping, not code of its own: which fields of config.json are which of `ModelConfig`, which arrangement of
the one Transformer they describe, and what its tensors are called. Those of the field lie in `interop/families`, one file
each, and are found by the `model_type` in config.json; other packages add theirs by entry points in the group
`lucidlm.family`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from lucidlm.core.errors import InputError
from lucidlm.core.registry import Registry
from lucidlm.model.config import ModelConfig

Kind = Literal["language", "classifier", "span"]

OWN_PREFIX: dict[Kind, str] = {"language": "model.", "classifier": "model.", "span": "transformer."}
"""What the names of the Transformer's weights begin with, in our models."""

ARRANGEMENT = (
    "causal",
    "norm",
    "position",
    "activation",
    "bias",
    "qkv_bias",
    "qk_norm",
    "post_norm",
    "head_transform",
)
"""The fields of `ModelConfig` that tell one family from another; the rest are sizes."""

ROTARY_SIZES = {
    "vocab_size": "vocab_size",
    "embedding_dim": "hidden_size",
    "num_heads": "num_attention_heads",
    "ff_dim": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "context_length": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "tied_embeddings": "tie_word_embeddings",
}
"""The names that Llama gave the sizes of a model with rotary positions, and most others kept."""


@dataclass(frozen=True)
class Module:
    """A module of theirs and those of ours that it stands for, "{}" being the block's number.

    Parameters
    ----------
    ours: several where theirs holds them in one tensor, one after another along the outputs.
    transposed: theirs is stored as (inputs, outputs).
    """

    theirs: str
    ours: tuple[str, ...]
    transposed: bool = False


def module(theirs: str, *ours: str, transposed: bool = False) -> Module:
    """Return the `Module` of these names."""
    return Module(theirs, ours, transposed)


@dataclass(frozen=True)
class Family:
    """One family.

    Parameters
    ----------
    model_type: its name in config.json.
    architectures: the class of transformers for each kind of model; a kind that is not there, it has no class for.
    backbone: the class for the Transformer alone.
    arrangement: what it fixes of `ARRANGEMENT`, where that is not our default.
    sizes: fields of ours and what they are called in config.json.
    defaults: what transformers takes for fields that a config.json leaves out, where that is not our default.
    demands: fields of config.json that must have this value, or be absent; another means a feature we do not have.
    constants: what a config.json of this family holds besides.
    modules: names of the weights below `prefix`; none: theirs are ours.
    heads: names of the weights outside of it, those that are not ours.
    prefix: what the names of the Transformer's weights begin with; None: as ours.
    ignored: a pattern of tensors that files hold and the model does not need.
    equal_heads: it has no key heads in groups, and no width of heads of its own.
    derived: called with the fields of a config.json, returns those of ours that follow from several of theirs.
    older: what names in older files hold, and what is written there now.
    classifier_pooling: what transformers' classifier of this family reads.
    """

    model_type: str
    architectures: Mapping[Kind, str]
    backbone: str
    arrangement: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, str] = field(default_factory=lambda: ROTARY_SIZES)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    demands: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    modules: tuple[Module, ...] = ()
    heads: Mapping[Kind, tuple[Module, ...]] = field(default_factory=dict)
    prefix: str | None = None
    ignored: str | None = None
    equal_heads: bool = False
    derived: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda fields: {}
    older: Mapping[str, str] = field(default_factory=dict)
    classifier_pooling: Literal["last", "mean", "first"] = "last"

    def fits(self, config: ModelConfig) -> bool:
        """Return whether `config` is of this family."""
        plain = config.key_heads == config.num_heads and config.head_width * config.num_heads == config.embedding_dim
        segmented = (config.token_types > 0) == ("token_types" in self.sizes)
        alike = all(getattr(config, name) == value for name, value in self._arrangement().items())
        return alike and segmented and (plain or not self.equal_heads)

    def reads_as(self, pooling: str) -> bool:
        """Return whether transformers' classifier of this family reads a text's class from the same state."""
        return "classifier" in self.architectures and pooling == self.classifier_pooling

    # ------------------------------------------------------------------ config.json

    def to_config(self, fields: Mapping[str, Any], where: str) -> ModelConfig:
        """Return the configuration that a config.json describes.

        Raises
        ------
        InputError: a field is wrong, missing, or asks for what the family's Transformer has not got here.
        """
        for name, value in self.demands.items():
            if (found := fields.get(name, value)) != value and found is not None:
                raise InputError(
                    f"{name} is {found!r}; of this family only {value!r} is supported",
                    where=where,
                    fix="Choose another model.",
                )
        known = {**self.defaults, **{name: value for name, value in fields.items() if value is not None}}
        sizes = {ours: known[theirs] for ours, theirs in self.sizes.items() if theirs in known}
        rope = rope_fields(fields, known, where) if self._arrangement()["position"] == "rotary" else {}
        return ModelConfig.parse({**self._arrangement(), **sizes, **rope, **self.derived(known)}, where)

    def to_fields(self, config: ModelConfig, kind: Kind) -> dict[str, Any]:
        """Return what config.json holds for a model of this `kind`."""
        values = {**config.model_dump(), "num_kv_heads": config.key_heads, "head_dim": config.head_width}
        fields = {theirs: values[ours] for ours, theirs in self.sizes.items()}
        if config.position == "rotary":
            rope = {"rope_type": "default", "rope_theta": config.rope_theta}
            if (scaling := config.rope_scaling) is not None:
                rope |= {"rope_type": scaling.kind, "factor": scaling.factor}
            if scaling is not None and scaling.kind == "llama3":
                rope |= {theirs: getattr(scaling, ours) for ours, theirs in LLAMA3.items()}
            # The first two were read by transformers before version 5, the last is read since.
            fields |= {"rope_theta": config.rope_theta, "rope_scaling": rope if scaling else None}
            fields |= {"rope_parameters": rope}
        return {
            "model_type": self.model_type,
            "architectures": [self.architectures.get(kind, "LucidLM")],
            **fields,
            **self.demands,
            **self.constants,
        }

    def _arrangement(self) -> dict[str, Any]:
        return {name: self.arrangement.get(name, ModelConfig.model_fields[name].default) for name in ARRANGEMENT}

    # ------------------------------------------------------------------ weights

    def to_ours(self, tensors: Mapping[str, Tensor], config: ModelConfig, kind: Kind) -> dict[str, Tensor]:
        """Return the tensors of a file of theirs under our names; what has no name of ours keeps its own.

        Nothing is copied: parts and transposes are views. Heads for another `kind` are left out.
        """
        prefix, own = OWN_PREFIX[kind] if self.prefix is None else self.prefix, OWN_PREFIX[kind]
        heads = _by_their_name(self.heads.get(kind, ()), config.num_layers)
        others = [_by_their_name(parts, config.num_layers) for other, parts in self.heads.items() if other != kind]
        body = _by_their_name(self.modules, config.num_layers)
        # Files of the Transformer alone leave the prefix out.
        bare = not any(name.startswith(prefix) for name in tensors)
        found: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            for old, new in self.older.items():
                name = name.replace(old, new)
            if self.ignored is not None and re.search(self.ignored, name):
                continue
            if name in heads:
                found |= _parts(heads[name], tensor, "")
            elif any(name in other for other in others):
                continue
            elif (inner := name.removeprefix(prefix)) in body:
                found |= _parts(body[inner], tensor, own)
            elif name.startswith(prefix) and not self.modules:
                found[own + inner] = tensor
            elif bare and not self.modules and not name.startswith(("lm_head.", "score.", "qa_outputs.")):
                found[own + name] = tensor
            else:
                found[name] = tensor
        return found

    def to_theirs(self, state: Mapping[str, Tensor], config: ModelConfig, kind: Kind) -> dict[str, Tensor]:
        """Return our tensors under their names, in the form that their software reads."""
        prefix, own = OWN_PREFIX[kind] if self.prefix is None else self.prefix, OWN_PREFIX[kind]
        rest, found = dict(state), {}
        places = [(prefix, own, part) for part in self.modules] + [("", "", part) for part in self.heads.get(kind, ())]
        for their_prefix, our_prefix, part in places:
            for theirs, ours in _names(part, config.num_layers):
                whole = [rest.pop(our_prefix + name) for name in ours if our_prefix + name in rest]
                if whole:
                    tensor = whole[0] if len(whole) == 1 else torch.cat(whole)
                    found[their_prefix + theirs] = tensor.T if part.transposed and tensor.dim() == 2 else tensor
        if self.modules:
            return found | rest
        return {prefix + name[len(own) :] if name.startswith(own) else name: tensor for name, tensor in state.items()}


LLAMA3 = {
    "low_frequency": "low_freq_factor",
    "high_frequency": "high_freq_factor",
    "original_context": "original_max_position_embeddings",
}


def rope_fields(fields: Mapping[str, Any], known: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return `rope_theta` and `rope_scaling` as a config.json says them, in any of the ways it has said them over time.

    Raises
    ------
    InputError: positions are scaled in a way that this version does not know.
    """
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise InputError(f"rope_parameters should be an object, not {rope!r}", where=where)
    kind = rope.get("rope_type", rope.get("type", "default"))
    theta = rope.get("rope_theta", known.get("rope_theta", 10_000.0))
    if rope.get("partial_rotary_factor", known.get("partial_rotary_factor", 1.0)) != 1.0:
        raise InputError("rotary positions of a part of each head are not supported", where=where)
    if kind == "default":
        return {"rope_theta": theta}
    if kind not in ("linear", "llama3"):
        raise InputError(
            f"rotary positions scaled by {kind!r} are not supported", where=where, fix="Known are linear and llama3."
        )
    scaling = {"kind": kind, "factor": rope.get("factor")}
    if kind == "llama3":
        scaling |= {ours: rope[theirs] for ours, theirs in LLAMA3.items() if theirs in rope}
    return {"rope_theta": theta, "rope_scaling": scaling}


def _names(part: Module, layers: int) -> list[tuple[str, list[str]]]:
    """Return their name and ours of each tensor of a module, in every block."""
    return [
        (f"{part.theirs.format(index)}{ending}", [f"{name.format(index)}{ending}" for name in part.ours])
        for index in range(layers if "{}" in part.theirs else 1)
        for ending in (("",) if part.theirs.endswith("bias") else (".weight", ".bias"))
    ]


def _by_their_name(parts: tuple[Module, ...], layers: int) -> dict[str, tuple[list[str], bool]]:
    return {theirs: (ours, part.transposed) for part in parts for theirs, ours in _names(part, layers)}


def _parts(place: tuple[list[str], bool], tensor: Tensor, prefix: str) -> dict[str, Tensor]:
    names, transposed = place
    whole = tensor.T if transposed and tensor.dim() == 2 else tensor
    parts = whole.tensor_split(len(names)) if whole.dim() else (whole,) * len(names)
    return {prefix + name: part for name, part in zip(names, parts, strict=True)}


families: Registry[Family] = Registry("family")
"""By the `model_type` of config.json."""


def family_named(name: object, where: str) -> Family:
    """Return the family of a config.json's `model_type`.

    Raises
    ------
    InputError: it is none that is known.
    """
    if not isinstance(name, str) or name not in families:
        raise InputError(
            f"model type {name!r} is not known to this version of lucidlm",
            where=where,
            fix=f"Known are {', '.join(families)}.",
        )
    return families.get(name)


def family_of(config: ModelConfig) -> Family | None:
    """Return the family that an arrangement belongs to; None if it is one that only this package knows."""
    return next((family for family in map(families.get, families) if family.fits(config)), None)
