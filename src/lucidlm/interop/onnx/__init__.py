"""Export to ONNX: causal models with KV cache, masked models, classifiers of texts and tokens, span extractors.

The graph is built here, operator by operator, so it is the same for any version of PyTorch. PyTorch's exporter was tried:
it prints warnings, needs onnxscript and seconds per layer, and folds positions into tables.
"""

from __future__ import annotations

from pathlib import Path

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.extras import require_package


def export_onnx(loaded: LoadedModel, out: Path, dtype: str | None = None) -> None:
    """Write `loaded` as a directory: `model.onnx`, its weights, config.json and the tokenizer's files.

    Names and shapes of inputs and outputs are those of Hugging Face's exporter; see `lucidlm.interop.onnx.export`.

    Parameters
    ----------
    dtype: of stored weights, fp32 (None) or fp16; computation is in fp32.

    Raises
    ------
    InputError: onnx is not installed, `dtype` is not supported, weights exceed its range, or `out` exists already.
    LucidError: the disk is full, or the weights are not finite.
    """
    require_package("onnx", "onnx")
    from lucidlm.interop.onnx.export import export

    export(loaded, out, dtype)
