"""Turn the config.json of a model saved by transformers into a record like our own `lucidlm.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from lucidlm.checkpoint.families import family_named
from lucidlm.checkpoint.family import Family, ModelKind
from lucidlm.core.errors import InputError
from lucidlm.core.progress import log
from lucidlm.model.config import ProblemType

ENDINGS: dict[str, ModelKind] = {
    "ForCausalLM": "language",
    "LMHeadModel": "language",
    "ForMaskedLM": "language",
    "ForPreTraining": "language",
    "ForSequenceClassification": "classifier",
    "ForTokenClassification": "tagger",
    "ForQuestionAnswering": "span",
}
"""Suffixes of transformers' class names, and the kind of model of each."""

MOST_CLASSES = 1_000_000
"""More than any classifier has. The limit is needed because a name is made for each class that a file claims."""


def read_hf_config(fields: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the record of a model from the `fields` of its config.json at `path`.

    Raises
    ------
    InputError: a field is wrong, or names a family, a head or a feature that is not supported.
    """
    where = str(path)
    family = family_named(fields.get("model_type"), where)
    kind = _kind(fields.get("architectures"), family, where)
    config = family.to_config(fields, where)
    record: dict[str, Any] = {"kind": kind, "model": config.model_dump(), "provenance": {}}
    if fields.get("architectures") == [family.backbone] and (config.head_transform or not config.tied_embeddings):
        log(f"{where}: a Transformer without a head; until one is trained, every token has the same chance")
    if kind == "classifier":
        problem_type = _problem_type(fields, family, where)
        labels = _labels(fields, where, problem_type)
        record |= {"labels": labels, "pooling": family.classifier_pooling, "problem_type": problem_type}
    if kind == "tagger":
        record["labels"] = _labels(fields, where, "single_label_classification")
    return record


def _kind(architectures: object, family: Family, where: str) -> ModelKind:
    """Return the kind of model from a config.json's list of classes; without one it is a language model."""
    named = str(architectures[0] if isinstance(architectures, list) and architectures else family.backbone)
    if named == family.backbone:
        return "language"
    for ending, kind in ENDINGS.items():
        if named.endswith(ending) and kind in family.architectures:
            return kind
    raise InputError(
        f"holds a {named}, which is not supported",
        where=where,
        fix=f"Known are {', '.join(family.architectures.values())} and {family.backbone}.",
    )


def _problem_type(fields: Mapping[str, Any], family: Family, where: str) -> ProblemType:
    """Return what a classifier's logits mean; refuse other poolings: they would be misread."""
    pooling = fields.get("classifier_pooling", family.defaults.get("classifier_pooling", family.classifier_pooling))
    if pooling != family.classifier_pooling:
        raise InputError(f"classifier_pooling {pooling!r} is not supported", where=where)
    problem = fields.get("problem_type") or "single_label_classification"
    if problem not in get_args(ProblemType):
        raise InputError(
            f"problem_type is {problem!r}, which is not supported",
            where=where,
            fix="Choose another model.",
        )
    return problem


def _labels(fields: Mapping[str, Any], where: str, problem_type: ProblemType) -> list[str]:
    """Return the class names in the order of their ids: two at least to choose one of, and one for a number."""
    count = fields.get("num_labels")
    if count is not None and (type(count) is not int or not 0 < count <= MOST_CLASSES):
        raise InputError(f"num_labels is {count!r}, not a number of classes", where=where)
    named = fields.get("id2label") or {number: f"LABEL_{number}" for number in range(count or 2)}
    try:
        names = {int(key): str(label) for key, label in named.items()}
    except (AttributeError, TypeError, ValueError):
        raise InputError(f"id2label should name each class by its number, not {named!r}", where=where) from None
    if sorted(names) != list(range(len(names))):
        raise InputError(f"id2label leaves out numbers: {sorted(names)[:10]}", where=where)
    if count not in (None, len(names)):
        raise InputError(
            f"id2label names {len(names)} classes, num_labels says {count}", where=where, fix="Correct either."
        )
    if len(names) > 1 and problem_type == "regression":
        raise InputError(f"gives {len(names)} numbers; one is supported", where=where, fix="Choose another model.")
    if len(names) == 1 and problem_type == "single_label_classification":
        raise InputError(
            "has a single class: it gives texts a figure, not a class", where=where, fix="Choose another model."
        )
    return [names[number] for number in range(len(names))]
