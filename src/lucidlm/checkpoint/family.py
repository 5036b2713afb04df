"""Families of models: how the config.json and the weights that other software knows map to ours, and back.

A family is a mapping, not code of its own: which fields of config.json are which of `ModelConfig`, which arrangement of
the one Transformer they describe, and what its tensors are called. Those of the field lie in `interop/families`, one file
each, and are found by the `model_type` in config.json; other packages add theirs by entry points in the group
`lucidlm.family`.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from lucidlm.core.errors import InputError
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, Model, SequenceClassifier, SpanExtractor, blank_head

ModelKind = Literal["language", "classifier", "span"]

OWN_PREFIX: dict[ModelKind, str] = {"language": "model.", "classifier": "model.", "span": "transformer."}
"""What the names of the Transformer's weights begin with, in our models."""

ARRANGEMENT = (
    "causal",
    "norm",
    "position",
    "bias",
    "qkv_bias",
    "qk_norm",
    "post_norm",
    "head_transform",
)
"""The fields of `ModelConfig` that, with the activation, tell one family from another; the rest are sizes."""

HEADS = re.compile(r"(lm_head|score|qa_outputs|classifier|cls)\.")
"""How the names of tensors begin that are never the Transformer's."""


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
    activation: the field of config.json that names the MLP's activation.
    activations: what it may say, and which of ours that is; the first is what it means where it says nothing.
    sizes: fields of ours and what they are called in config.json.
    defaults: what transformers takes for fields that a config.json leaves out, where that is not our default.
    demands: fields of config.json that must have this value, or be absent; another means a feature we do not have.
    constants: what a config.json of this family holds besides.
    modules: names of the weights below `prefix`; none: theirs are ours.
    heads: names of the weights outside of it, those that are not ours.
    prefix: what the names of the Transformer's weights begin with; None: as ours.
    ignored: a pattern of tensors that files hold and the model does not need; they are not read.
    equal_heads: it has no key heads in groups, and no width of heads of its own.
    read: called with the fields of a config.json, returns those of ours that follow from several of theirs.
    write: called with our configuration, returns what config.json holds of it besides the sizes.
    older: what names in older files hold, and what is written there now.
    copies: tensors that a file may hold a second time, under the first name; what it then holds there is what counts.
    classifier_pooling: what transformers' classifier of this family reads.
    """

    model_type: str
    architectures: Mapping[ModelKind, str]
    backbone: str
    activations: Mapping[str, str]
    sizes: Mapping[str, str]
    arrangement: Mapping[str, Any] = field(default_factory=dict)
    activation: str = "hidden_act"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    demands: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    modules: tuple[Module, ...] = ()
    heads: Mapping[ModelKind, tuple[Module, ...]] = field(default_factory=dict)
    prefix: str | None = None
    ignored: str | None = None
    equal_heads: bool = False
    read: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda fields: {}
    write: Callable[[ModelConfig], dict[str, Any]] = lambda config: {}
    older: Mapping[str, str] = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)
    classifier_pooling: Literal["last", "mean", "first"] = "last"

    def fits(self, config: ModelConfig) -> bool:
        """Return whether `config` is of this family."""
        plain = config.num_kv_heads == config.num_heads and config.head_dim * config.num_heads == config.embedding_dim
        segmented = (config.token_types > 0) == ("token_types" in self.sizes)
        alike = all(getattr(config, name) == value for name, value in self._arrangement().items())
        active = config.activation in self.activations.values()
        return alike and active and segmented and (plain or not self.equal_heads)

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
        arrangement = self._arrangement()
        # Fields that change what any model of transformers computes.
        general = {"is_causal": arrangement["causal"], "per_layer_config": None}
        for name, value in {**general, **self.demands}.items():
            if (found := fields.get(name)) != value and found is not None:
                raise _unsupported(name, found, [value], where)
        layers = fields.get("layer_types") or []
        if not isinstance(layers, list) or any(layer != "full_attention" for layer in layers):
            raise _unsupported("layer_types", layers, ["full_attention"], where)
        active = fields.get(self.activation) or next(iter(self.activations))
        if not isinstance(active, str) or active not in self.activations:
            raise _unsupported(self.activation, active, self.activations, where)
        known = {**self.defaults, **fields}
        sizes = {ours: known[theirs] for ours, theirs in self.sizes.items() if theirs in known}
        try:
            return ModelConfig(**{**arrangement, "activation": self.activations[active], **sizes, **self.read(known)})
        except InputError as error:
            # The reader has their names before them, not ours.
            what = re.sub("|".join(rf"\b{name}\b" for name in self.sizes), lambda m: self.sizes[m[0]], error.what)
            raise InputError(what, where=where, fix=error.fix) from None

    def to_fields(self, config: ModelConfig, kind: ModelKind) -> dict[str, Any]:
        """Return what config.json holds for a model of this `kind`."""
        values = config.model_dump()
        active = next(theirs for theirs, ours in self.activations.items() if ours == config.activation)
        return {
            "model_type": self.model_type,
            "architectures": [self.architectures.get(kind, "LucidLM")],
            # Only a tokenizer tells them; their usual values may lie beyond this vocabulary.
            **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
            **{theirs: values[ours] for ours, theirs in self.sizes.items()},
            self.activation: active,
            **self.write(config),
            **self.demands,
            **self.constants,
        }

    def _arrangement(self) -> dict[str, Any]:
        return {name: self.arrangement.get(name, ModelConfig.model_fields[name].default) for name in ARRANGEMENT}

    # ------------------------------------------------------------------ weights

    def to_ours(self, tensors: Mapping[str, Tensor], config: ModelConfig, kind: ModelKind) -> dict[str, Tensor]:
        """Return the tensors of a file of theirs under our names; what has no name of ours keeps its own.

        Nothing is copied: parts and transposes are views. Heads for another `kind` are left out; for a Transformer that
        comes without one there is a blank one.
        """
        prefix, own = OWN_PREFIX[kind] if self.prefix is None else self.prefix, OWN_PREFIX[kind]
        body = _by_their_name(self.modules, config.num_layers)
        heads = {of: _by_their_name(parts, config.num_layers) for of, parts in self.heads.items()}
        head = heads.pop(kind, {})
        found: dict[str, Tensor] = {}
        for name, tensor in self._in_todays_names(tensors, prefix).items():
            if name in head:
                found |= _parts(head[name], tensor, "")
            elif any(name in other for other in heads.values()):
                continue
            elif not name.startswith(prefix):
                found[name] = tensor
            elif (inner := name.removeprefix(prefix)) in body:
                found |= _parts(body[inner], tensor, own)
            else:
                found[name if self.modules else own + inner] = tensor
        if kind == "language" and found and _bare(tensors, prefix) and not any(map(HEADS.match, tensors)):
            found |= blank_head(config, next(iter(found.values())).device)
        return found

    def _in_todays_names(self, tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
        """Return a file's tensors under the names that those of a whole model have today."""
        named: dict[str, Tensor] = {}
        bare = _bare(tensors, prefix)
        for name, tensor in tensors.items():
            for old, new in self.older.items():
                name = name.replace(old, new)
            named[prefix + name if bare and not HEADS.match(name) else name] = tensor
        for copy, original in self.copies.items():
            if copy in named:
                named[original] = named.pop(copy)
        return named

    def to_our_modules(self, theirs: str, config: ModelConfig, kind: ModelKind) -> list[str]:
        """Return the names of our modules that one of theirs stands for; it alone where it has no other name here."""
        parts = [(self.prefix or "", OWN_PREFIX[kind], part) for part in self.modules]
        parts += [("", "", part) for part in self.heads.get(kind, ())]
        for prefix, own, part in parts:
            for name, ours in _names(part, config.num_layers):
                if prefix + name == f"{theirs}.weight":
                    return [own + one.removesuffix(".weight") for one in ours]
        return [theirs]

    def to_theirs(self, state: Mapping[str, Tensor], config: ModelConfig, kind: ModelKind) -> dict[str, Tensor]:
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
            copies = {} if config.tied_embeddings else self.copies
            return found | rest | {copy: found[name].clone() for copy, name in copies.items() if name in found}
        return {prefix + name[len(own) :] if name.startswith(own) else name: tensor for name, tensor in state.items()}


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


def _bare(tensors: Mapping[str, Tensor], prefix: str) -> bool:
    """Return whether a file is of the Transformer alone, whose names then leave the prefix out."""
    return not any(name.startswith(prefix) for name in tensors)


def _unsupported(name: str, found: object, supported: Iterable[object], where: str) -> InputError:
    return InputError(
        f"{name} is {reprlib.repr(found)}; of this family only {' and '.join(map(repr, supported))} is supported",
        where=where,
        fix="Choose another model.",
    )


KINDS: dict[type[Model], ModelKind] = {
    LanguageModel: "language",
    SequenceClassifier: "classifier",
    SpanExtractor: "span",
}


def kind_of(model: Model) -> ModelKind:
    """Return what kind of model it is."""
    return next(kind for cls, kind in KINDS.items() if isinstance(model, cls))
