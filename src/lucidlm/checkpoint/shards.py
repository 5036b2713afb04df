"""Write weights to safetensors files one tensor at a time.

The library's own writer takes all tensors of a file at once, so a converted copy of the whole model would have to be in
memory. Here each tensor is written as soon as it is converted.
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
"""Larger models are split into shards, as in transformers."""

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I8": torch.int8,
    "I32": torch.int32,
    "I64": torch.int64,
}
"""safetensors' names of the dtypes that weights may be stored in: packed ones as I32, their shapes as I64."""

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def save_weights(shapes: Mapping[str, Tensor], tensors: Iterable[tuple[str, Tensor]], directory: Path) -> list[str]:
    """Write `tensors`, holding one at a time, and rename the files into place; return their names.

    Parameters
    ----------
    shapes: for each tensor to come, in any order, one of the same shape and dtype, which may be on the meta device.

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
    """Return the header of a file, and each tensor's offset from the start of the file."""
    fields: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    # Wider dtypes come first, so that every tensor is aligned to its item size.
    for name, value in sorted(shapes.items(), key=lambda item: (-item[1].itemsize, item[0])):
        begin, end = end, end + value.nbytes
        fields[name] = {"dtype": _NAMES[value.dtype], "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    offsets = {name: start + fields[name]["data_offsets"][0] for name in shapes}
    return len(text).to_bytes(8, "little") + text, offsets
