"""Model families: how transformers' config.json and weight names map to ours, and back.

A family is a mapping, not code of its own: which fields of config.json are which of `ModelConfig`, which arrangement of
the one Transformer they describe, and what its tensors are called. Known ones are in `checkpoint/families`, one file
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
from lucidlm.model.heads import LanguageModel, Model, SequenceClassifier, SpanExtractor, TokenClassifier, blank_head

ModelKind = Literal["language", "classifier", "tagger", "span"]

OWN_PREFIX: dict[ModelKind, str] = {
    "language": "model.",
    "classifier": "model.",
    "tagger": "model.",
    "span": "transformer.",
}
"""Prefix of the Transformer's weight names in our models."""

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
"""The fields of `ModelConfig` that, with the activation, distinguish families; the rest are sizes."""

HEADS = re.compile(r"(lm_head|score|qa_outputs|classifier|cls)\.")
"""Prefixes of tensor names that belong to a head, never to the Transformer."""


@dataclass(frozen=True)
class Module:
    """A module of the family and the same one, or several, of ours; "{}" is the layer's index.

    Parameters
    ----------
    ours: several where the family fuses them in one tensor, concatenated along the outputs.
    transposed: the family stores (inputs, outputs).
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
    architectures: transformers' class for each kind of model; kinds without a class are left out.
    backbone: transformers' class for the Transformer without a head.
    arrangement: values of the fields in `ARRANGEMENT` that differ from our defaults.
    activation: the field of config.json that names the MLP's activation.
    activations: our activation for each value of that field; the first is the default.
    sizes: our fields and their names in config.json.
    defaults: transformers' defaults for fields missing from a config.json, where they differ from ours.
    required: fields of config.json that must have this value or be absent; any other value is a feature we do not have.
    constants: other fields to write to config.json.
    modules: the family's names for weights below `prefix`; empty: the same as ours.
    heads: its names for weights of heads, where they differ from ours.
    prefix: of the Transformer's weight names; None: the same as ours.
    ignored: a regular expression for tensors in files that the model does not need; they are not read.
    equal_heads: neither grouped-query attention nor a head width other than `embedding_dim / num_heads`.
    read: takes the fields of a config.json, returns our fields that depend on several of them.
    write: takes our configuration, returns the fields of config.json that are not in `sizes`.
    legacy_names: parts of names in older files, and what replaced them.
    duplicates: name of a second copy in some files -> name of the original; if both are there, the copy is used.
    classifier_pooling: the state that transformers' classifier of this family reads.
    """

    model_type: str
    architectures: Mapping[ModelKind, str]
    backbone: str
    activations: Mapping[str, str]
    sizes: Mapping[str, str]
    arrangement: Mapping[str, Any] = field(default_factory=dict)
    activation: str = "hidden_act"
    defaults: Mapping[str, Any] = field(default_factory=dict)
    required: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    modules: tuple[Module, ...] = ()
    heads: Mapping[ModelKind, tuple[Module, ...]] = field(default_factory=dict)
    prefix: str | None = None
    ignored: str | None = None
    equal_heads: bool = False
    read: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda fields: {}
    write: Callable[[ModelConfig], dict[str, Any]] = lambda config: {}
    legacy_names: Mapping[str, str] = field(default_factory=dict)
    duplicates: Mapping[str, str] = field(default_factory=dict)
    classifier_pooling: Literal["last", "mean", "first"] = "last"

    def fits(self, config: ModelConfig) -> bool:
        """Return whether this family can express `config`."""
        plain = config.num_kv_heads == config.num_heads and config.head_dim * config.num_heads == config.embedding_dim
        segmented = (config.token_types > 0) == ("token_types" in self.sizes)
        alike = all(getattr(config, name) == value for name, value in self._arrangement().items())
        active = config.activation in self.activations.values()
        return alike and active and segmented and (plain or not self.equal_heads)

    def reads_as(self, pooling: str) -> bool:
        """Return whether transformers' classifier of this family uses the same `pooling`."""
        return "classifier" in self.architectures and pooling == self.classifier_pooling

    # ------------------------------------------------------------------ config.json

    def to_config(self, fields: Mapping[str, Any], where: str) -> ModelConfig:
        """Return the configuration that a config.json describes.

        Raises
        ------
        InputError: a field is wrong or missing, or asks for a feature that is not supported here.
        """
        arrangement = self._arrangement()
        # Fields of any transformers model that change what it computes.
        general = {"is_causal": arrangement["causal"], "per_layer_config": None}
        for name, value in {**general, **self.required}.items():
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
            # The user sees the names in config.json, not ours.
            what = re.sub("|".join(rf"\b{name}\b" for name in self.sizes), lambda m: self.sizes[m[0]], error.what)
            raise InputError(what, where=where, fix=error.fix) from None

    def to_fields(self, config: ModelConfig, kind: ModelKind) -> dict[str, Any]:
        """Return the fields of config.json for a model of this `kind`."""
        values = config.model_dump()
        active = next(theirs for theirs, ours in self.activations.items() if ours == config.activation)
        return {
            "model_type": self.model_type,
            "architectures": [self.architectures.get(kind, "LucidLM")],
            # Set from the tokenizer, if there is one; transformers' defaults may lie beyond this vocabulary.
            **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
            **{theirs: values[ours] for ours, theirs in self.sizes.items()},
            self.activation: active,
            **self.write(config),
            **self.required,
            **self.constants,
        }

    def _arrangement(self) -> dict[str, Any]:
        return {name: self.arrangement.get(name, ModelConfig.model_fields[name].default) for name in ARRANGEMENT}

    # ------------------------------------------------------------------ weights

    def to_ours(self, tensors: Mapping[str, Tensor], config: ModelConfig, kind: ModelKind) -> dict[str, Tensor]:
        """Return a file's tensors under our names; unknown names are kept.

        Nothing is copied: parts and transposes are views. Heads of another `kind` are left out; a language model without
        a head gets a blank one.
        """
        prefix, own = OWN_PREFIX[kind] if self.prefix is None else self.prefix, OWN_PREFIX[kind]
        body = _by_their_name(self.modules, config.num_layers)
        heads = {of: _by_their_name(parts, config.num_layers) for of, parts in self.heads.items()}
        head = heads.pop(kind, {})
        found: dict[str, Tensor] = {}
        for name, tensor in self._in_current_names(tensors, prefix).items():
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
        if kind == "language" and found and _is_backbone(tensors, prefix) and not any(map(HEADS.match, tensors)):
            found |= blank_head(config, next(iter(found.values())).device)
        return found

    def _in_current_names(self, tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
        """Return a file's tensors under the current names of a model with a head."""
        named: dict[str, Tensor] = {}
        bare = _is_backbone(tensors, prefix)
        for name, tensor in tensors.items():
            for old, new in self.legacy_names.items():
                name = name.replace(old, new)
            named[prefix + name if bare and not HEADS.match(name) else name] = tensor
        for copy, original in self.duplicates.items():
            if copy in named:
                named[original] = named.pop(copy)
        return named

    def to_our_modules(self, theirs: str, config: ModelConfig, kind: ModelKind) -> list[str]:
        """Return our names for a module of the family; its own name if that is not mapped."""
        parts = [(self.prefix or "", OWN_PREFIX[kind], part) for part in self.modules]
        parts += [("", "", part) for part in self.heads.get(kind, ())]
        for prefix, own, part in parts:
            for name, ours in _names(part, config.num_layers):
                if prefix + name == f"{theirs}.weight":
                    return [own + one.removesuffix(".weight") for one in ours]
        return [theirs]

    def to_theirs(self, state: Mapping[str, Tensor], config: ModelConfig, kind: ModelKind) -> dict[str, Tensor]:
        """Return our tensors under the family's names and in its layout."""
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
            copies = {} if config.tied_embeddings else self.duplicates
            return found | rest | {copy: found[name].clone() for copy, name in copies.items() if name in found}
        return {prefix + name[len(own) :] if name.startswith(own) else name: tensor for name, tensor in state.items()}


def _names(part: Module, layers: int) -> list[tuple[str, list[str]]]:
    """Return, for each tensor of a module in every layer, the family's name and ours."""
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


def _is_backbone(tensors: Mapping[str, Tensor], prefix: str) -> bool:
    """Return whether a file holds the backbone alone: its names then have no prefix."""
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
    TokenClassifier: "tagger",
    SpanExtractor: "span",
}


def kind_of(model: Model) -> ModelKind:
    """Return the kind of a model."""
    return next(kind for cls, kind in KINDS.items() if isinstance(model, cls))
