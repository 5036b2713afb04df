"""Open a directory that holds only adapters: the base model it names, with the adapters merged, as in transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lucidlm.checkpoint.family import Family, ModelKind
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.checkpoint.peft import CONFIG, WEIGHTS, Adapter, attach_adapter, read_adapter
from lucidlm.checkpoint.source import REPOSITORY
from lucidlm.core.errors import InputError
from lucidlm.core.progress import log
from lucidlm.model.lora import merge

KINDS: dict[str | None, ModelKind | None] = {
    "CAUSAL_LM": "language",
    "SEQ_CLS": "classifier",
    "TOKEN_CLS": "tagger",
    "QUESTION_ANS": "span",
    "FEATURE_EXTRACTION": None,
    None: None,
}
"""The kind of model for each of PEFT's task types; None: the kind of the base model."""

HEAD_OF: dict[ModelKind, str] = {
    "classifier": "score or classifier",
    "tagger": "score or classifier",
    "span": "qa_outputs",
    "language": "lm_head",
}

LABELLED = ("classifier", "tagger")
"""Kinds of models whose head says how many labels there are."""

TIED = {"embed_tokens", "lm_head", "wte", "word_embeddings", "decoder"}
"""Names of input and output embeddings, which tied models share."""


@dataclass(frozen=True)
class AdapterChanges:
    """What an adapter changes in its base model, apart from the low-rank matrices themselves.

    Parameters
    ----------
    kind: of the resulting model; None: the kind of the base model.
    tensors: weights that replace the base model's own, under the names of its family.
    """

    kind: ModelKind | None
    tensors: Mapping[str, Tensor]
    where: Path

    def record(self, record: dict[str, Any], family: Family | None) -> dict[str, Any]:
        """Return the base model's record, changed to this kind of model.

        Raises
        ------
        InputError: the head is missing, or the pooling of the classifier is not known.
        """
        tied = record["model"].get("tied_embeddings") and [name for name in self.tensors if TIED & set(name.split("."))]
        if tied:
            raise InputError(
                f"was tuned with a {tied[0]} of its own; the model reads and writes by one and the same matrix",
                where=self.where,
                fix="Merge it where it was made, and save the whole model.",
            )
        if self.kind is None or (self.kind == record["kind"] and self.kind not in LABELLED):
            return record
        head = next(
            (value for name, value in self.tensors.items() if name in ("score.weight", "classifier.weight")), None
        )
        if self.kind in LABELLED and head is not None:
            labels = record.get("labels") or []
            named = labels if len(labels) == len(head) else [f"LABEL_{number}" for number in range(len(head))]
            if self.kind == "tagger":
                return record | {"kind": "tagger", "labels": named}
            if family is None or family.classifier_pooling is None:
                raise InputError(
                    "says nothing of how a text's class is read", where=self.where, fix="Save the whole model instead."
                )
            return record | {"kind": "classifier", "labels": named, "pooling": family.classifier_pooling}
        if self.kind == record["kind"] or (self.kind == "span" and "qa_outputs.weight" in self.tensors):
            return record | {"kind": self.kind}
        raise InputError(
            f"holds no {HEAD_OF[self.kind]}, which the model that it belongs to has not either",
            where=self.where,
            fix="Tune it with the head among modules_to_save.",
        )


def is_adapter_directory(path: Path) -> bool:
    """Return whether a directory holds adapters and no model."""
    return (path / CONFIG).is_file() and not (path / "config.json").exists()


def open_adapted(path: Path, open_base: Callable[[str, AdapterChanges], LoadedModel]) -> LoadedModel:
    """Open the base model of the adapter in `path` and merge the adapter into its weights.

    Raises
    ------
    InputError: the base model cannot be opened, or is another one; the adapter uses a feature that is not supported.
    """
    adapter = read_adapter(path)
    kind = _kind(adapter)
    if adapter.checksum is not None and kind != "language":
        raise InputError(
            "holds adapters only, without the labels and settings of the model that they were tuned for here",
            where=path,
            fix="Open the whole model, which was saved beside them.",
        )
    base = _base(adapter)
    try:
        loaded = open_base(base, AdapterChanges(kind, adapter.saved, path / WEIGHTS))
    except InputError as error:
        if error.where is not None and str(error.where).startswith(str(path)):
            raise
        raise InputError(
            f"holds adapters for the model {adapter.base!r}, which cannot be opened ({error})",
            where=path,
            fix=f"Get that model, and say in {CONFIG} where it lies (base_model_name_or_path).",
        ) from None
    attach_adapter(loaded.model, adapter)
    merge(loaded.model)
    log(f"{path}: adapters, merged into {adapter.base}")
    # The base's checksum is not this model's.
    record = {name: value for name, value in loaded.record.items() if name != "checksum"}
    record["provenance"] = {**record["provenance"], "adapter": str(path)}
    model = loaded.model.eval().requires_grad_(True)
    return replace(loaded, model=model, record=record, paths=(path, *loaded.paths))


def _kind(adapter: Adapter) -> ModelKind | None:
    task = adapter.fields.get("task_type")
    if task not in KINDS:
        raise InputError(
            f"is for the task {task}, which there is no model for here",
            where=adapter.directory / CONFIG,
            fix=f"Known are {', '.join(filter(None, KINDS))}.",
        )
    if KINDS[task] is not None:
        return KINDS[task]
    heads = {name.split(".")[0] for name in adapter.saved}
    return "classifier" if heads & {"score", "classifier"} else "span" if "qa_outputs" in heads else None


def _base(adapter: Adapter) -> str:
    """Return where an adapter's base model is: a local path, a path relative to the adapter, or a repository of the hub."""
    named = adapter.base
    if not isinstance(named, str) or not named:
        raise InputError(
            "holds adapters, and does not say what model they belong to",
            where=adapter.directory,
            fix=f"Say where it lies in {CONFIG} (base_model_name_or_path).",
        )
    for place in (Path(named), adapter.directory.parent / named, adapter.directory / named):
        if place.exists():
            return str(place)
    if named.startswith(("hf:", "pypi:")) or not REPOSITORY.fullmatch(named):
        return named
    revision = adapter.fields.get("revision")
    return f"hf:{named}@{revision}" if isinstance(revision, str) else f"hf:{named}"
