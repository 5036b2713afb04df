"""Read weights from safetensors files: checked first, then memory-mapped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from lucidlm.checkpoint.quantize import decompress, stored_shapes
from lucidlm.checkpoint.shards import DTYPES, INDEX, WEIGHTS
from lucidlm.core.errors import InputError
from lucidlm.core.io import read_json

LARGEST_HEADER = 32 << 20
"""Bytes. A model of 1,000 tensors has a header of 0.1 MB; in memory it takes several times that."""

PICKLES = (".bin", ".pt", ".pth", ".pkl")
"""Usual extensions of files with pickled weights."""

LONGEST_NAME = 255
"""Bytes that file systems allow for a file name."""


def load_weights(path: str | Path, ignored: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of a model directory or safetensors file, except those whose names match the regex `ignored`.

    They are floating-point and memory-mapped; those stored in int8 or int4 are dequantised to fp32.

    Raises
    ------
    InputError: nothing is there, it is a pickle (which could run any code, and is never opened), it is damaged, or it
        holds values that are not finite or of an unsupported dtype.
    """
    stored: dict[str, Tensor] = {}
    for file in weight_files(path):
        with _sound(file):
            held = load_file(file)
            _add(stored, {name: held[name] for name in _kept(held, ignored)}, file)
    tensors = decompress(stored, Path(path))
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise InputError(f"the weights {name} hold infinities or NaN", where=path, fix="The model is of no use.")
    return tensors


def weight_shapes(path: str | Path, ignored: str | None = None) -> dict[str, Tensor]:
    """Read only the headers of weight files: return each tensor's shape and dtype as a meta tensor.

    Scales of weights in int8 or int4 are checked and left out; so are tensors whose names match the regex `ignored`.

    Raises
    ------
    InputError: as `load_weights`, but for values that are not finite.
    """
    shapes: dict[str, Tensor] = {}
    for file in weight_files(path):
        with _sound(file), safe_open(file, "pt") as header:
            kept = _kept(header.keys(), ignored)
            _add(shapes, {name: _shape(header.get_slice(name), name, file) for name in kept}, file)
    return stored_shapes(shapes, Path(path))


def _kept(names: Iterable[str], ignored: str | None) -> list[str]:
    return [name for name in names if ignored is None or not re.search(ignored, name)]


def _shape(part: Any, name: str, file: Path) -> Tensor:
    dtype = DTYPES.get(part.get_dtype())
    if dtype is None:
        raise InputError(
            f"{name} is stored as {part.get_dtype()}, which is not supported",
            where=file,
            fix=f"Convert it to one of {', '.join(DTYPES)}.",
        )
    return torch.empty(part.get_shape(), dtype=dtype, device="meta")


def _add(tensors: dict[str, Tensor], found: dict[str, Tensor], file: Path) -> None:
    if twice := tensors.keys() & found.keys():
        raise InputError(f"{min(twice)} is in another file too", where=file, fix="It is damaged; restore it.")
    tensors |= found


def weight_files(path: str | Path) -> list[Path]:
    """Return the weight files of a model directory, or `path` itself if it is a file.

    Raises
    ------
    InputError: there is none, it is a pickle, or the directory's index names files outside of it.
    """
    path = Path(path)
    files = _files_of_directory(path) if path.is_dir() else [path]
    for file in files:
        if not file.is_file():
            raise InputError("file not found", where=file)
        _refuse_pickle(file)
    return files


def check_fit(expected: Mapping[str, torch.Size], tensors: Mapping[str, Tensor], where: Path) -> None:
    """Compare the tensors that a model needs with those in a file.

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


def own_file(name: str, listed_in: Path) -> str:
    """Return `name` if it is a plain file name in the model's directory.

    Raises
    ------
    InputError: it is a path to somewhere else, which a model must not read.
    """
    odd = name in ("", ".", "..") or Path(name).name != name or "\\" in name or "\0" in name
    if odd or len(name.encode()) > LONGEST_NAME:
        raise InputError(
            f"lists {name!r}, which is not in the model directory",
            where=listed_in,
            fix="Do not use this model: it tries to read other files.",
        )
    return name


@contextmanager
def _sound(file: Path) -> Iterator[None]:
    try:
        with open(file, "rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
        if LARGEST_HEADER < size < file.stat().st_size:
            raise InputError(
                f"has a header of {size:,} bytes, models' have at most {LARGEST_HEADER:,}",
                where=file,
                fix="Do not use this model: reading it could take all memory.",
            )
        yield
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:  # PyTorch's, for sizes that overflow
        raise InputError(
            f"is not a whole safetensors file ({error})",
            where=file,
            fix="It is damaged or of another kind; restore it.",
        ) from None


def _files_of_directory(directory: Path) -> list[Path]:
    index = directory / INDEX
    if (directory / WEIGHTS).exists():
        return [directory / WEIGHTS]
    if index.exists():
        return [directory / name for name in listed_shards(index)]
    if pickles := [path.name for path in directory.iterdir() if path.name.endswith(PICKLES)]:
        raise InputError(
            f"holds only pickled weights ({', '.join(pickles)}), which could run any code when opened",
            where=directory,
            fix="Convert them to safetensors where they come from.",
        )
    raise InputError(f"has no {WEIGHTS}", where=directory)


def listed_shards(index: Path) -> list[str]:
    """Return the file names of the shards listed in an index.

    Raises
    ------
    InputError: it lists none, or one outside the model's directory.
    """
    shards: Any = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise InputError("has no weight_map, which says where each tensor is", where=index)
    return [own_file(name, index) for name in sorted(set(map(str, shards.values())))]


def _refuse_pickle(file: Path) -> None:
    with open(file, "rb") as stream:
        start = stream.read(9)
    # A pickle starts with its protocol number, a PyTorch archive with the magic bytes of a zip file. The header size at the
    # start of a safetensors file may look the same, but JSON follows it.
    if start[8:] != b"{" and start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK"):
        raise InputError(
            "is a pickle, which could run any code when opened, and is refused",
            where=file,
            fix="Convert it to safetensors where it comes from.",
        )
