"""Exporters: functions that write a model as files for other software.

They are registered by name; other packages add theirs by entry points in the group `lucidlm.exporter`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.core.io import require_vacant
from lucidlm.core.registry import Registry
from lucidlm.model.heads import SequenceClassifier

Exporter = Callable[[LoadedModel, Path, str | None], None]
"""Called with the model, the output path, and the dtype to store, or None.

It raises an `InputError` before writing anything if the software does not support such a model or dtype.
"""

exporters: Registry[Exporter] = Registry(
    "exporter",
    {
        "hf": "lucidlm.interop.hf:export_hf",
        "gguf": "lucidlm.interop.gguf.write:export_gguf",
        "keras": "lucidlm.interop.keras.directory:export_keras",
        "onnx": "lucidlm.interop.onnx:export_onnx",
        "saved-model": "lucidlm.interop.keras.saved_model:export_saved_model",
    },
)


def export_model(loaded: LoadedModel, to: str, out: Path, dtype: str | None = None, *, deep_only: bool = False) -> None:
    """Write a model in the form `to`, which the registry knows.

    Parameters
    ----------
    dtype: how weights are stored; None: fp32.
    deep_only: leave out the counted n-grams beside a classifier's Transformer, which no other software reads.

    Raises
    ------
    InputError: there is no such form, or it has no place for such a model or dtype; `out` holds something.
    """
    exporter = exporters.get(to)
    require_vacant(out)
    model = loaded.model
    if not isinstance(model, SequenceClassifier) or model.wide is None:
        exporter(loaded, out, dtype)
        return
    if not deep_only:
        raise InputError(
            f"the model counts n-grams beside its Transformer, which {to} has no place for",
            where=loaded.source,
            fix="Pass --deep-only to export the Transformer alone (eval.json says how good that is), or fine-tune with "
            "--no-wide.",
        )
    wide, model.wide = model.wide, None
    try:
        exporter(loaded, out, dtype)
    finally:
        model.wide = wide
