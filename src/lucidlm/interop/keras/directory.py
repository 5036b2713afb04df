"""The directory format for Keras: weights in HDF5, tokenizer, `config.json`; written and read without Keras.

`config.json` has the model's configuration and the checksums of the other files; it is written last, so a directory
without it is incomplete. The weights file alone can be loaded too, into a model of the right shape.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lucidlm.checkpoint.generation_config import GENERATION_CONFIG, read_generation_defaults
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.checkpoint.record import RECORD, record_checksum
from lucidlm.checkpoint.save import token_ids
from lucidlm.checkpoint.weights import WEIGHTS as SAFETENSORS
from lucidlm.checkpoint.weights import check_fit, own_file
from lucidlm.core.errors import InputError
from lucidlm.core.io import (
    check_file,
    describe_files,
    listed_files,
    read_json,
    require_free_space,
    require_vacant,
    write_json,
)
from lucidlm.interop.keras.weights import h5_shapes, load_h5, save_h5
from lucidlm.model.config import ModelConfig
from lucidlm.model.generation import GenerationDefaults
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.version import __version__

CONFIG, WEIGHTS = "config.json", "big_language_model_weights.weights.h5"
FORMAT = "lucidlm-keras-1"


def export_keras(loaded: LoadedModel, out: Path, dtype: str | None) -> None:
    """Write the directory for a causal language model.

    Raises
    ------
    InputError: it is a model of another kind, or one that the Keras port does not support; `out` exists already.
    LucidError: the disk is full.
    """
    require_fp32(dtype)
    model = loaded.require_causal()
    require_portable(model.config)
    write_directory(model.state_dict(), model.config, loaded.tokenizer, model.generation, out)


def write_directory(
    state: dict[str, Tensor],
    config: ModelConfig,
    tokenizer: Tokenizer | None,
    generation: GenerationDefaults,
    out: Path,
) -> None:
    """Write weights (under the names of our PyTorch model), tokenizer and settings; errors are those of `export_keras`."""
    require_vacant(out)
    require_free_space(out, sum(4 * value.numel() for value in state.values()) + 2**24)
    save_h5(state, out / WEIGHTS)
    names = [WEIGHTS]
    write_json(out / GENERATION_CONFIG, generation.to_json(token_ids(tokenizer, config.vocab_size)))
    if tokenizer is not None:
        tokenizer.save(out)
        names += ["tokenizer.json", "tokenizer_config.json"]
    record = {"format": FORMAT, "version": __version__, "model": config.model_dump(mode="json")}
    write_json(out / CONFIG, {**record, "files": describe_files(out, names)})


def load_keras(path: Path) -> LoadedModel:
    """Load such a directory, or the one of the weights file at `path`, as a PyTorch model.

    Raises
    ------
    InputError: it is not such a directory, is damaged, or its weights do not fit config.json.
    """
    directory = path if path.is_dir() else path.parent
    record = read_record(directory)
    if record is None:
        raise InputError(
            f"has no {CONFIG} of ours beside it, which says what model the weights are of",
            where=path,
            fix="Pass a directory written by `lucidlm export --to keras`, or load the weights into a "
            "BigLanguageModel of lucidlm.interop.keras and save that with save_pretrained.",
        )
    config, weights = ModelConfig.parse(record["model"], where=directory / CONFIG), directory / WEIGHTS
    require_portable(config)
    shapes = h5_shapes(weights)
    if config.num_layers > len(shapes):
        raise InputError(f"speaks of {config.num_layers:,} layers, the weights have fewer", where=directory / CONFIG)
    with torch.device("meta"):
        model = LanguageModel(config, seed=None)
    check_fit({name: value.shape for name, value in model.state_dict().items()}, shapes, weights)
    model.load_state_dict(load_h5(weights), assign=True)
    model.generation = read_generation_defaults(directory, {})
    held = (directory / "tokenizer.json").exists()
    return LoadedModel(
        model.eval(),
        Tokenizer.load(directory) if held else None,
        {"kind": "language", "model": config.model_dump(), "provenance": {}, "checksum": record_checksum(record)},
    )


def read_record(directory: Path) -> dict | None:
    """Return a directory's `config.json`, with all files checked against it; None if there is none of this format.

    Raises
    ------
    InputError: it is of another version, or a file is missing, truncated or changed.
    """
    if not (directory / CONFIG).is_file():
        return None
    record = read_json(directory / CONFIG)
    if not str(record.get("format")).startswith("lucidlm-keras-"):
        return None
    if record["format"] != FORMAT:
        raise InputError(
            f"has format {record['format']} (lucidlm {record.get('version', '?')}); this is lucidlm {__version__}",
            where=directory / CONFIG,
            fix="Install the version that wrote it.",
        )
    try:
        listed = listed_files(record.get("files")).items()
        files = {own_file(name, directory / CONFIG): kept for name, kept in listed}
        dict(record["model"])
    except (KeyError, TypeError, ValueError):
        raise InputError(
            "does not list a model's settings and files", where=directory / CONFIG, fix="It is damaged; restore it."
        ) from None
    for name, (size, checksum) in files.items():
        check_file(directory / name, size, checksum, record=CONFIG, fix="Restore it or export it again.")
    return record


def model_directory_of(path: Path) -> Path:
    """Return the model directory that the weights file at `path` belongs to, if it is one; else `path`.

    Raises
    ------
    InputError: as `read_record`.
    """
    records = {
        WEIGHTS: lambda: read_record(path.parent) is not None,
        SAFETENSORS: lambda: any((path.parent / name).exists() for name in (RECORD, CONFIG)),
    }
    return path.parent if path.is_file() and path.name in records and records[path.name]() else path


def require_fp32(dtype: str | None) -> None:
    """Raise an `InputError` for a dtype other than fp32."""
    if dtype not in (None, "fp32"):
        raise InputError(f"{dtype!r} is not offered for Keras", where="--dtype", fix="Leave it out, or choose fp32.")


def require_portable(config: ModelConfig) -> None:
    """Raise an `InputError` for an architecture that the Keras port, which is causal, does not support."""
    refused = {"causal": True, "post_norm": False, "token_types": 0, "head_transform": False}
    for name, needed in refused.items():
        if (value := getattr(config, name)) != needed:
            raise InputError(
                f"the Keras port has no model with {name}={value!r}: it is for models that continue text",
                where=name,
                fix="Use it in PyTorch, or export it to ONNX.",
            )
