"""The model directory: what training leaves behind and everything else reads.

`config.json`, `model.safetensors` (in shards past 5 GB), the tokenizer's files and `generation_config.json` are as
transformers has them; `lucidlm.json` adds what it has no place for (labels, pooling, provenance) and the checksums of
the rest. It is written last, just after `config.json`: a directory without the two is not a model, so one that a crash
left half-written opens nowhere. Nothing in it is a pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lucidlm.core.errors import InputError, LucidError
from lucidlm.core.io import atomic_path, check_file, disk_errors, read_json, require_free_space, sha256, write_json
from lucidlm.data.tokenizer import Tokenizer
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, Model, SequenceClassifier, SpanExtractor
from lucidlm.model.hf import family, from_hf, to_hf
from lucidlm.version import __version__

FORMAT = 1
RECORD = "lucidlm.json"
WEIGHTS = "model.safetensors"
BACKBONES = {"qwen3": "Qwen3Model", "llama": "LlamaModel", "eurobert": "EuroBertModel"}
KINDS = {LanguageModel: "language", SequenceClassifier: "classifier", SpanExtractor: "span"}


@dataclass
class Loaded:
    """What a model directory holds: the model, in evaluation mode, its tokenizer if it has one, and `lucidlm.json`."""

    model: Model
    tokenizer: Tokenizer | None
    record: dict[str, Any]


def save_model(
    model: Model, directory: str | Path, tokenizer: Tokenizer | None = None, *, provenance: dict[str, Any] | None = None
) -> None:
    """Write `model`, and the tokenizer it was trained with, as a model directory.

    `provenance` is where the model comes from: task, data card, seed, resolved configuration, metrics.

    Raises
    ------
    LucidError: the disk is full; the weights are not finite.
    """
    directory = Path(directory)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise LucidError(f"the weights {name} hold infinities or NaN, and were not saved", where=directory)
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    require_free_space(directory, sum(value.nbytes for value in state.values()) + 2**20)
    _remove_model(directory)
    names = _save_weights(state, directory)
    if tokenizer is not None:
        tokenizer.save(directory)
        names += ["tokenizer.json", "tokenizer_config.json"]
    if isinstance(model, LanguageModel) and model.config.causal:
        ids = {} if tokenizer is None else _token_ids(tokenizer)
        write_json(directory / "generation_config.json", {"do_sample": True, "temperature": 1.0, **ids})
    write_json(directory / "config.json", _config_json(model, tokenizer))
    names.append("config.json")
    record = {
        "format": FORMAT,
        "version": __version__,
        "kind": _kind(model),
        "model": model.config.model_dump(),
        "provenance": provenance or {},
        "files": {
            name: {"bytes": (directory / name).stat().st_size, "sha256": sha256(directory / name)} for name in names
        },
    }
    if isinstance(model, SequenceClassifier):
        record |= {"labels": model.labels, "pooling": model.pooling}
    write_json(directory / RECORD, {**record, "checksum": _checksum(record)})


def _kind(model: Model) -> str:
    return next(kind for cls, kind in KINDS.items() if isinstance(model, cls))


def _remove_model(directory: Path) -> None:
    """Remove an earlier model's files, first those that make it one: none of them is to pass for a part of the next."""
    with disk_errors(directory):
        for name in (RECORD, "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
            (directory / name).unlink(missing_ok=True)
        for path in directory.glob("model*.safetensors*"):
            path.unlink()


def _checksum(record: dict[str, Any]) -> str:
    """Return the SHA-256 of a record's values, however they are laid out in its file."""
    values = json.loads(json.dumps({name: value for name, value in record.items() if name != "checksum"}))
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _save_weights(state: dict[str, Tensor], directory: Path) -> list[str]:
    """Write the tensors beside their destination, then rename them into place; return the names of the files."""
    with disk_errors(directory), tempfile.TemporaryDirectory(dir=directory, prefix=".weights-") as temporary:
        save_torch_state_dict(state, temporary, max_shard_size="5GB", metadata={"format": "pt"})
        names = sorted(path.name for path in Path(temporary).iterdir())
        for name in names:
            with atomic_path(directory / name) as destination:
                os.replace(Path(temporary) / name, destination)
    return names


def _config_json(model: Model, tokenizer: Tokenizer | None) -> dict[str, Any]:
    fields = to_hf(model.config, _kind(model))
    if tokenizer is not None:
        fields |= _token_ids(tokenizer)
    if isinstance(model, SequenceClassifier):
        fields["id2label"] = {str(index): label for index, label in enumerate(model.labels)}
        fields["label2id"] = {label: index for index, label in enumerate(model.labels)}
        fields["classifier_pooling"] = model.pooling
        kind = family(model.config)
        if kind in BACKBONES and (model.pooling == "last") != model.config.causal:
            # transformers' classifiers pool the other way and would be silently wrong: offer it the backbone only.
            fields["architectures"] = [BACKBONES[kind]]
    return fields


def _token_ids(tokenizer: Tokenizer) -> dict[str, int]:
    return {"bos_token_id": tokenizer.eos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}


def load_model(directory: str | Path, *, verify: bool = True) -> Loaded:
    """Read a model directory of ours, or one of transformers' in an arrangement we share (Qwen3, Llama, EuroBERT).

    Parameters
    ----------
    verify: check every file against the checksums recorded when it was saved.

    Raises
    ------
    InputError: it is no model directory, of a newer format, damaged, or holds pickled weights only.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError("there is no such model directory", where=directory)
    if not (directory / RECORD).exists() and not (directory / "config.json").exists():
        raise InputError(
            f"is not a model directory (it has neither {RECORD} nor config.json)",
            where=directory,
            fix="Pass what --out named when the model was trained.",
        )
    record = _read_record(directory, verify) if (directory / RECORD).exists() else _adopt(directory)
    where = directory / RECORD
    config = ModelConfig.parse(record["model"], where=where)
    model = _empty(record, config)
    _assign(model, load_weights(directory), directory)
    has_tokenizer = (directory / "tokenizer.json").exists()
    return Loaded(model.eval(), Tokenizer.load(directory) if has_tokenizer else None, record)


def _read_record(directory: Path, verify: bool) -> dict[str, Any]:
    record = read_json(directory / RECORD)
    if record.get("format") != FORMAT:
        raise InputError(
            f"has format {record.get('format')!r} (lucidlm {record.get('version', '?')}), this is lucidlm "
            f"{__version__} and reads format {FORMAT}",
            where=directory / RECORD,
            fix="Install the version that wrote it.",
        )
    if record.get("checksum") != _checksum(record):
        raise InputError(
            "does not match its checksum: it has changed since it was saved",
            where=directory / RECORD,
            fix="Restore it or train again.",
        )
    for name, expected in record["files"].items() if verify else ():
        path = directory / _own_file(name, directory / RECORD)
        fix = "Restore it or train again."
        check_file(path, expected["bytes"], expected["sha256"], record=RECORD, fix=fix)
    return record


def _adopt(directory: Path) -> dict[str, Any]:
    """Return a record for a directory that transformers wrote."""
    fields = read_json(directory / "config.json")
    architecture = str((fields.get("architectures") or [""])[0])
    config = from_hf(fields, str(directory / "config.json"))
    record: dict[str, Any] = {"kind": "language", "model": config.model_dump(), "provenance": {}}
    if architecture.endswith("ForSequenceClassification"):
        names = {int(key): label for key, label in fields.get("id2label", {0: "LABEL_0", 1: "LABEL_1"}).items()}
        pooling = "last" if config.causal else fields.get("classifier_pooling")
        if pooling not in ("last", "mean"):
            raise InputError(f"classifier_pooling {pooling!r} is not supported", where=directory / "config.json")
        record |= {"kind": "classifier", "labels": [names[key] for key in sorted(names)], "pooling": pooling}
    elif architecture.endswith("ForQuestionAnswering"):
        record["kind"] = "span"
    return record


def _empty(record: dict[str, Any], config: ModelConfig) -> Model:
    """Build the model without memory for its weights, which are on their way."""
    with torch.device("meta"):
        if record["kind"] == "classifier":
            return SequenceClassifier(config, record["labels"], record["pooling"], seed=None)
        return (LanguageModel if record["kind"] == "language" else SpanExtractor)(config, seed=None)


def _assign(model: Model, tensors: dict[str, Tensor], where: Path) -> None:
    copy = tensors.get("lm_head.weight")
    if copy is not None and model.config.tied_embeddings and torch.equal(copy, tensors["model.embed_tokens.weight"]):
        # Some writers store a tied head a second time.
        tensors = {name: value for name, value in tensors.items() if name != "lm_head.weight"}
    check_fit({name: value.shape for name, value in model.state_dict().items()}, tensors, where)
    model.load_state_dict({name: value.float() for name, value in tensors.items()}, assign=True)


def check_fit(expected: dict[str, torch.Size], tensors: dict[str, Tensor], where: Path) -> None:
    """Compare what a model needs with what a file has.

    Raises
    ------
    InputError: tensors are missing, too many, or of another shape; up to three are named.
    """
    for what, names in (("missing", expected.keys() - tensors.keys()), ("unknown", tensors.keys() - expected.keys())):
        if names:
            raise InputError(
                f"{len(names)} tensors are {what}: {', '.join(sorted(names)[:3])} …",
                where=where,
                fix="The weights are of another model.",
            )
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise InputError(
                f"{name} has shape {tuple(tensors[name].shape)}, the model's is {tuple(shape)}",
                where=where,
                fix="The weights are of a model of another size.",
            )


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a model directory or of a safetensors file, memory-mapped.

    Raises
    ------
    InputError: nothing is there, it is a pickle (which could run any code, and is never opened), it is damaged, or it
        holds values that are not finite.
    """
    path = Path(path)
    files = _weight_files(path) if path.is_dir() else [path]
    tensors: dict[str, Tensor] = {}
    for file in files:
        if not file.is_file():
            raise InputError("file not found", where=file)
        _refuse_pickle(file)
        try:
            tensors |= load_file(file)
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(
                f"is not a whole safetensors file ({error})",
                where=file,
                fix="It is damaged or of another kind; restore it.",
            ) from None
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise InputError(f"the weights {name} hold infinities or NaN", where=path, fix="The model is of no use.")
    return tensors


def _weight_files(directory: Path) -> list[Path]:
    index = directory / f"{WEIGHTS}.index.json"
    if (directory / WEIGHTS).exists():
        return [directory / WEIGHTS]
    if index.exists():
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise InputError("has no weight_map, which says where each tensor is", where=index)
        return [directory / _own_file(name, index) for name in sorted(set(map(str, shards.values())))]
    if pickles := [path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl") for path in directory.glob(pattern)]:
        raise InputError(
            f"holds only pickled weights ({', '.join(pickles)}), which could run any code when opened",
            where=directory,
            fix="Convert them to safetensors where they come from.",
        )
    raise InputError(f"has no {WEIGHTS}", where=directory)


def _own_file(name: str, listed_in: Path) -> str:
    """Return `name` if it is that of a file in the directory itself.

    Raises
    ------
    InputError: it points elsewhere, where a model has no business to read.
    """
    if name in ("", ".", "..") or Path(name).name != name or "\\" in name:
        raise InputError(
            f"lists {name!r}, which is not in the model directory",
            where=listed_in,
            fix="Do not use this model: it tries to read other files.",
        )
    return name


def _refuse_pickle(file: Path) -> None:
    with open(file, "rb") as stream:
        start = stream.read(4)
    # A pickle starts with its protocol mark, PyTorch's archive of pickles with that of a zip file.
    if start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK"):
        raise InputError(
            "is a pickle, which could run any code when opened, and is refused",
            where=file,
            fix="Convert it to safetensors where it comes from.",
        )
