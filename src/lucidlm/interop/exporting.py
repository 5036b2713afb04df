"""Exporters: what turns a model into the files that other software loads.

Each is a function, found by name; other packages add theirs by entry points in the group `lucidlm.exporter`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.registry import Registry

Exporter = Callable[[LoadedModel, Path, str | None], None]
"""Called with the model, where to write, and the number format that was asked for, if any.

It raises an `InputError` if the software has no place for such a model or format, before anything is written.
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
