"""The language model in Keras 3, on TensorFlow: `from lucidlm.interop.keras import BigLanguageModel`.

The class is imported on first use: reading and writing its files needs neither Keras nor TensorFlow.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lucidlm.core.errors import InputError

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
    try:
        from lucidlm.interop.keras.model import BigLanguageModel
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("keras", "tensorflow", "h5py", "jax"):
            raise
        raise InputError(
            f"{error.name} is not installed", fix="Install it: pip install 'lucidlm[tensorflow]'."
        ) from None
    return BigLanguageModel
