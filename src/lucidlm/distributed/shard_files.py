"""Tensors in files that all ranks write together, each its part, and that any number of ranks reads.

PyTorch's Distributed Checkpoint, in safetensors: no pickles. What it reads may also be tensors that one process wrote whole.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import torch
from torch import Tensor, distributed
from torch.distributed.checkpoint import async_save, load  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter

Template = Callable[[str, torch.Size], Tensor | None]
"""The sharded tensor that one of a name and a shape is read into; None: a plain one on the CPU."""


def write_shards(directory: Path, tensors: dict[str, Tensor], group: distributed.ProcessGroup) -> Future[object]:
    """Copy `tensors` to the host, and write them to `directory` while training goes on.

    Parameters
    ----------
    tensors: sharded ones, and plain ones that are the same on all ranks.
    group: of all ranks, over gloo, for this alone: it is used beside the others.
    """
    writer = HuggingFaceStorageWriter(str(directory), save_distributed=True)
    found = async_save(tensors, storage_writer=writer, process_group=group)
    assert isinstance(found, Future)
    return found


def read_shards(directory: Path, template: Template) -> dict[str, Tensor]:
    """Return all tensors in the safetensors files of `directory`; of sharded ones this rank's part."""
    reader = HuggingFaceStorageReader(str(directory))
    tensors = {}
    for name, found in reader.read_metadata().state_dict_metadata.items():
        like = template(name, found.size)  # pyright: ignore[reportAttributeAccessIssue]
        dtype = found.properties.dtype  # pyright: ignore[reportAttributeAccessIssue]
        tensors[name] = torch.empty(found.size, dtype=dtype) if like is None else torch.empty_like(like)  # pyright: ignore
    with warnings.catch_warnings():
        # Each rank reads what it needs, without a word to the others, which PyTorch takes for an oversight.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        load(tensors, storage_reader=reader, no_dist=True)
    return tensors
