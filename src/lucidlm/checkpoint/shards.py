"""Weights written to safetensors files one tensor after another.

The library's own writer wants all tensors of a file at once, so that a model would have to be in memory a second time in
the form in which it is stored. Here each goes to its place as soon as it is made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from torch import Tensor

from lucidlm.core.io import atomic_path, write_json

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
SHARD_BYTES = 5 * 10**9
"""Larger models are split, as transformers has it."""

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I8": torch.int8,
}
"""How safetensors calls the numbers that weights may be stored in."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def save_weights(shapes: Mapping[str, Tensor], tensors: Iterable[tuple[str, Tensor]], directory: Path) -> list[str]:
    """Write `tensors`, each held no longer than that takes, and rename the files into place; return their names.

    Parameters
    ----------
    shapes: for each tensor that will come, in whatever order, one of its shape and dtype, which may be without memory.

    Raises
    ------
    LucidError: the disk is full or refuses the write.
    """
    split = split_torch_state_dict_into_shards(dict(shapes), max_shard_size=SHARD_BYTES)
    places: dict[str, tuple[BinaryIO, int]] = {}
    with ExitStack() as stack:
        for name, held in split.filename_to_tensors.items():
            file = stack.enter_context(open(stack.enter_context(atomic_path(directory / name)), "wb"))
            header, offsets = _header({tensor: shapes[tensor] for tensor in held})
            file.write(header)
            places |= {tensor: (file, offset) for tensor, offset in offsets.items()}
        for name, value in tensors:
            file, offset = places[name]
            file.seek(offset)
            file.write(value.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    names = list(split.filename_to_tensors)
    if split.is_sharded:
        names.append(INDEX)
        write_json(directory / names[-1], {"metadata": split.metadata, "weight_map": split.tensor_to_filename})
    return names


def _header(shapes: Mapping[str, Tensor]) -> tuple[bytes, dict[str, int]]:
    """Return what a file begins with, and at which of its bytes each tensor does."""
    fields: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    # The wider numbers come first, so that all of them lie at multiples of their width.
    for name, value in sorted(shapes.items(), key=lambda item: (-item[1].itemsize, item[0])):
        begin, end = end, end + value.nbytes
        fields[name] = {"dtype": _NAMES[value.dtype], "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    offsets = {name: start + fields[name]["data_offsets"][0] for name in shapes}
    return len(text).to_bytes(8, "little") + text, offsets
