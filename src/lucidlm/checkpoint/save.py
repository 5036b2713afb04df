"""Writing a model directory: what training leaves behind and everything else reads.

`config.json`, `model.safetensors` (in shards past 5 GB), the tokenizer's files and `generation_config.json` are as
transformers writes them, under the names of the model's family; `lucidlm.json` adds what these have no field for (labels,
pooling, provenance) and the checksums of all files. It is written last, just after `config.json`: a directory without the
two is not a model, so a half-written one is never opened as one. Nothing in it is a pickle.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lucidlm.checkpoint.families import OWN_MODEL_TYPE, family_of
from lucidlm.checkpoint.family import Family, kind_of
from lucidlm.checkpoint.generation_config import GENERATION_CONFIG
from lucidlm.checkpoint.quantize import FLOATS, INTEGERS, Dtype, check_storable, compress, quantization_config
from lucidlm.checkpoint.record import RECORD, with_checksum
from lucidlm.checkpoint.sentence_files import LENGTHS, MODULES, PROMPTS, write_sentence_settings
from lucidlm.checkpoint.shards import save_weights
from lucidlm.checkpoint.wide_files import WIDE, WIDE_WEIGHTS, write_wide_branch
from lucidlm.core.errors import InputError
from lucidlm.core.io import describe_files, disk_errors, require_free_space, write_json
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, Model, SequenceClassifier, TokenClassifier
from lucidlm.tokenize.tokenizer import Tokenizer


def save_model(
    model: Model,
    directory: str | Path,
    tokenizer: Tokenizer | None = None,
    *,
    provenance: dict[str, Any] | None = None,
    dtype: Dtype = "fp32",
) -> None:
    """Write `model`, and the tokenizer it was trained with, as a model directory.

    Parameters
    ----------
    provenance: how the model was made: task, data card, seed, resolved configuration, metrics.
    dtype: how the weights are stored; `load_model` converts all of them to fp32 by default.

    Raises
    ------
    LucidError: the disk is full; the weights are not finite.
    InputError: the weights are too large for `dtype`.
    """
    directory = Path(directory)
    sentence = model.sentence if isinstance(model, LanguageModel) else None
    if sentence is not None and sentence.refused is not None:
        raise InputError(
            f"its {MODULES} {sentence.refused}, so it would be another model",
            where=directory,
            fix=f"Remove {MODULES} from the model to keep the Transformer alone.",
        )
    state = model.state_dict()
    check_storable(state, dtype, directory)
    family = _family_on_disk(model.config, dtype)
    on_meta = {name: value.to("meta") for name, value in state.items()}
    shapes = dict(_stored(family, on_meta, model, dtype))
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    require_free_space(directory, sum(value.nbytes for value in shapes.values()) + 2**20)
    _remove_model(directory)
    names = save_weights(shapes, _stored(family, state, model, dtype), directory)
    if sentence is not None:
        names += write_sentence_settings(sentence, directory, model.config.embedding_dim)
    if isinstance(model, SequenceClassifier) and model.wide is not None:
        names += write_wide_branch(model.wide, directory)
    names += save_settings(model, directory, tokenizer, family, dtype, shapes)
    record = {
        "kind": kind_of(model),
        "model": model.config.model_dump(),
        "provenance": provenance or {},
        "files": describe_files(directory, names),
    }
    if isinstance(model, SequenceClassifier):
        record |= {"labels": model.labels, "pooling": model.pooling, "problem_type": model.problem_type}
    if isinstance(model, TokenClassifier):
        record["labels"] = model.labels
    write_json(directory / RECORD, with_checksum(record))


def save_settings(
    model: Model,
    directory: Path,
    tokenizer: Tokenizer | None,
    family: Family | None,
    dtype: Dtype = "fp32",
    stored: Iterable[str] = (),
) -> list[str]:
    """Write the files beside the weights: the tokenizer's, generation_config.json, and config.json last.

    `stored` are the names of tensors on the disk, by which config.json says what int8 and int4 ones are.

    Returns the names of the files that the model cannot be loaded without.
    """
    names = []
    if tokenizer is not None:
        tokenizer.save(directory)
        names += ["tokenizer.json", "tokenizer_config.json"]
    if isinstance(model, LanguageModel) and model.config.causal:
        ids = token_ids(tokenizer, model.config.vocab_size)
        write_json(directory / GENERATION_CONFIG, model.generation.to_json(ids))
    write_json(directory / "config.json", _config_json(family, model, tokenizer, dtype, stored))
    return [*names, "config.json"]


def _remove_model(directory: Path) -> None:
    """Remove an earlier model's files, those that mark the directory as a model first, so that no two models get mixed."""
    with disk_errors(directory):
        settings = (GENERATION_CONFIG, "tokenizer.json", "tokenizer_config.json", MODULES, LENGTHS, PROMPTS)
        for name in (RECORD, "config.json", *settings, WIDE, WIDE_WEIGHTS):
            (directory / name).unlink(missing_ok=True)
        for path in directory.glob("model*.safetensors*"):
            path.unlink()


def _family_on_disk(config: ModelConfig, dtype: Dtype) -> Family | None:
    """Return the family whose names and layout the weights are stored in; None: our own.

    int8 and int4 have scales for each output channel. Where the family stores (inputs, outputs), as GPT-2 does, rows are not
    output channels and no other software has a format for it, so such weights are stored in our own layout.
    """
    family = family_of(config)
    if dtype in INTEGERS and family is not None and any(part.transposed for part in family.modules):
        return None
    return family


def _stored(
    family: Family | None, state: dict[str, Tensor], model: Model, dtype: Dtype
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors to be stored, converted layer by layer: all at once would take as much memory as the model."""
    for _, names in groupby(state, re.compile(r"\blayers\.\d+\.").findall):
        block = {name: state[name] for name in names}
        theirs = block if family is None else family.to_theirs(block, model.config, kind_of(model))
        for name, value in theirs.items():
            yield from compress(name, value, dtype).items()


def _config_json(
    family: Family | None, model: Model, tokenizer: Tokenizer | None, dtype: Dtype, stored: Iterable[str]
) -> dict[str, Any]:
    if family is None:
        fields = {"model_type": OWN_MODEL_TYPE, "architectures": ["LucidLM"], **model.config.model_dump()}
    else:
        fields = family.to_fields(model.config, kind_of(model))
    computed = torch.float16 if dtype == "int4" else FLOATS.get(dtype, torch.float32)
    fields["torch_dtype"] = str(computed).removeprefix("torch.")
    if dtype in INTEGERS and family is not None:
        fields["quantization_config"] = quantization_config(dtype, stored)
    fields |= token_ids(tokenizer, model.config.vocab_size)
    if tokenizer is not None and "mask_token_id" in fields:
        fields["mask_token_id"] = tokenizer.find("mask_token") or 0
    if isinstance(model, SequenceClassifier | TokenClassifier):
        fields["id2label"] = {str(index): label for index, label in enumerate(model.labels)}
        fields["label2id"] = {label: index for index, label in enumerate(model.labels)}
    if isinstance(model, SequenceClassifier):
        fields["classifier_pooling"] = model.pooling
        fields["problem_type"] = model.problem_type
        if model.pad_id is not None or (tokenizer is not None and _may_end_text(tokenizer.pad_id, tokenizer)):
            known = model.pad_id is not None and model.pad_id < model.config.vocab_size
            fields["pad_token_id"] = model.pad_id if known else None
        if family is not None and not family.reads_as(model.pooling):
            # transformers' classifiers pool another way and would be silently wrong: name the backbone only.
            fields["architectures"] = [family.backbone]
    return fields


def token_ids(tokenizer: Tokenizer | None, vocab_size: int) -> dict[str, int]:
    """Return the ids of special tokens for config.json and generation_config.json; none without a tokenizer.

    Ids beyond the model's `vocab_size` embedding rows are left out: transformers would not open the model.
    """
    if tokenizer is None:
        return {}
    ids = {"bos_token_id": tokenizer.begin_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    return {name: index for name, index in ids.items() if index < vocab_size}


def _may_end_text(token: int, tokenizer: Tokenizer) -> bool:
    """Return whether a token may be the last one of a text: then a classifier that skips it as padding differs."""
    added = tokenizer.core.get_added_tokens_decoder().get(token)
    return token in tokenizer.suffix or added is None or not added.special
