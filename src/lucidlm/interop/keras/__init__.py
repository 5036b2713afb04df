"""The language model in Keras 3, on TensorFlow: `from lucidlm.interop.keras import BigLanguageModel`.

The class is imported on first use: reading and writing its files needs neither Keras nor TensorFlow.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lucidlm.core.extras import require_package

if TYPE_CHECKING:
    from lucidlm.interop.keras.model import BigLanguageModel

__all__ = ["BigLanguageModel"]


def __getattr__(name: str) -> type[BigLanguageModel]:
    if name != "BigLanguageModel":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # hides notes on how TensorFlow was built
    # With oneDNN it prints four lines at each start, whatever the log level; it did not make steps faster.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    require_package("keras", "tensorflow")
    backend = os.environ["KERAS_BACKEND"]
    require_package(backend, "tensorflow" if backend == "tensorflow" else None)
    from lucidlm.interop.keras.model import BigLanguageModel

    return BigLanguageModel
