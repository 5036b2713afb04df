"""Exporters: functions that write a model as files for other software.

They are registered by name; other packages add theirs by entry points in the group `lucidlm.exporter`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.registry import Registry

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
