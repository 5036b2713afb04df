"""Load a model from a GGUF file, for `lucidlm import` and every command that takes a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import Keys
from torch import Tensor

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.interop.gguf.architectures import read_config, with_rope_factors
from lucidlm.interop.gguf.header import Header, read_header
from lucidlm.interop.gguf.names import TensorLayout, check_tensors, our_order
from lucidlm.interop.gguf.read_tokenizer import read_tokenizer
from lucidlm.interop.gguf.tensors import load_tensor, open_tensors
from lucidlm.model.generation import GenerationDefaults
from lucidlm.model.heads import LanguageModel

ENDS = (Keys.Tokenizer.EOS_ID, Keys.Tokenizer.EOT_ID, Keys.Tokenizer.EOM_ID)
"""Keys of the tokens that end texts, turns and messages; llama.cpp stops at each of them."""

SAMPLING: dict[str, tuple[str, type]] = {
    "temperature": (Keys.General.SAMPLING_TEMP, float),
    "top_k": (Keys.General.SAMPLING_TOP_K, int),
    "top_p": (Keys.General.SAMPLING_TOP_P, float),
    "min_p": (Keys.General.SAMPLING_MIN_P, float),
    "repetition_penalty": (Keys.General.SAMPLING_PENALTY_REPEAT, float),
}
"""Recommended sampling: fields of generation_config.json, with GGUF's keys and their types."""

PROVENANCE = (Keys.General.NAME, Keys.General.ORGANIZATION, Keys.General.LICENSE, Keys.General.SOURCE_URL)


def load_gguf(path: Path) -> LoadedModel:
    """Read model and tokenizer from a GGUF file; weights become fp32.

    All metadata are checked before any weight is read or memory allocated.

    Raises
    ------
    InputError: the file is damaged or inconsistent, or its architecture or tokenizer is not supported.
    """
    header = read_header(path)
    architecture, config = read_config(header)
    stored = check_tensors(header, architecture, config)
    config = with_rope_factors(config, header)
    tokenizer = read_tokenizer(header)
    with torch.device("meta"):
        model = LanguageModel(config, seed=None)
    model.load_state_dict(_weights(header, stored), assign=True)
    model.generation = _generation(header)
    record = {"kind": "language", "model": config.model_dump(), "provenance": _provenance(header)}
    return LoadedModel(model.eval(), tokenizer, record)


def _generation(header: Header) -> GenerationDefaults:
    """Return the tokens that end texts, turns and messages, and the recommended sampling."""
    ends = (header.get(key, int) for key in ENDS)
    fields: dict[str, Any] = {}
    for name, (key, kind) in SAMPLING.items():
        if (value := header.get(key, kind)) is not None:
            fields[name] = kind(str(np.float32(value))) if kind is float else value  # 0.8, not 0.800000011920929
    if fields:
        fields["do_sample"] = fields.get("temperature", 1.0) > 0
    return GenerationDefaults(tuple(dict.fromkeys(index for index in ends if index is not None)), fields)


def _weights(header: Header, layout: dict[str, TensorLayout]) -> dict[str, Tensor]:
    file = open_tensors(header.path)
    weights: dict[str, Tensor] = {}
    for name, stored in layout.items():
        first = 0
        for parameter, rows in stored.parts.items():
            order = our_order(rows, stored.heads) if stored.heads else None
            weights[parameter] = load_tensor(file, header.tensors[name], slice(first, first + rows), order)
            first += rows
    return weights


def _provenance(header: Header) -> dict[str, Any]:
    """Return the file's provenance, and the types in which its tensors were stored."""
    kinds = sorted({info.kind.name for info in header.tensors.values()})
    facts = {key.removeprefix("general."): header.get(key, str) for key in PROVENANCE}
    return {"gguf": {"file": header.path.name, "types": kinds, **{k: v for k, v in facts.items() if v is not None}}}
