"""Read the tensors of a GGUF file: memory-mapped, and dequantised to fp32 by the `gguf` package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from torch import Tensor

from lucidlm.core.errors import InputError
from lucidlm.interop.gguf.header import TensorInfo

CHUNK = 1 << 18
"""Elements converted at once: 1 MB of fp32, which stays in the processor's cache."""


def open_tensors(path: Path) -> np.memmap:
    """Memory-map a file, once for all its tensors, since each map keeps a file open.

    The map is copy-on-write: PyTorch accepts only writable arrays, and writes never reach the file.
    """
    return np.memmap(path, np.uint8, "c")


def load_tensor(file: np.memmap, info: TensorInfo, rows: slice, order: np.ndarray | None = None) -> Tensor:
    """Return `rows` of a matrix, or elements of a vector, in fp32, permuted by `order` (indices into them) if given.

    Matrices already in fp32 that need no permutation stay memory-mapped; what else there is is converted chunk by chunk
    into the result, bit for bit as `gguf.quants.dequantize` converts the whole. Vectors are copied: norms are in fp32 in
    every file, and one of them would keep all of it mapped.

    Raises
    ------
    InputError: the gguf package cannot read the tensor's type, or a value is not finite.
    """
    height, width = info.shape if len(info.shape) == 2 else (info.shape[0], 1)
    stored = file[info.offset : info.offset + info.nbytes].reshape(height, -1)[rows]
    if order is not None:
        stored = stored[order]
    mapped = info.kind == GGMLQuantizationType.F32 and len(info.shape) == 2
    result = torch.from_numpy(np.asarray(stored).view(np.float32)) if mapped else torch.empty(len(stored), width)
    step = max(1, CHUNK // width)
    for start in range(0, len(stored), step):
        values = _float32(np.asarray(stored[start : start + step]), info, file)
        if not np.isfinite(values).all():
            raise InputError(
                f"the weights {info.name} hold infinities or NaN", where=file.filename, fix="They are of no use."
            )
        if not mapped:
            result[start : start + step] = torch.from_numpy(values)
    return result if len(info.shape) == 2 else result.flatten()


def _float32(stored: np.ndarray, info: TensorInfo, file: np.memmap) -> np.ndarray:
    try:
        with np.errstate(all="ignore"):  # the effects of damaged scales are checked for in the result
            return dequantize(stored, info.kind)
    except NotImplementedError:
        raise InputError(
            f"{info.name} is stored as {info.kind.name}, which the gguf package cannot read",
            where=file.filename,
            fix="Get the model in another quantisation.",
        ) from None
