"""Models for ONNX Runtime and whatever else runs ONNX: decoders with a cache, masked models, classifiers, spans.

The graph is put together here, operator by operator. PyTorch's exporter was tried beside it: it prints warnings of its
own, needs onnxscript and seconds a layer, and folds positions into tables; the graph is the same for any version of PyTorch.
"""

from __future__ import annotations

from pathlib import Path

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError


def export_onnx(loaded: LoadedModel, out: Path, dtype: str | None = None) -> None:
    """Write `loaded` as a directory: `model.onnx`, its weights, config.json and the tokenizer's files.

    Names and shapes of inputs and outputs are those of Hugging Face's exporter; see `lucidlm.interop.onnx.export`.

    Parameters
    ----------
    dtype: how weights are stored, fp32 (None) or fp16; they are computed with in fp32.

    Raises
    ------
    InputError: onnx is not installed, there is no such `dtype` here, weights do not fit it, or something is at `out`.
    LucidError: the disk is full, or the weights are not finite.
    """
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise InputError("the package onnx is not installed", fix="pip install 'lucidlm[onnx]'") from None
    from lucidlm.interop.onnx.export import export

    export(loaded, out, dtype)
