"""Opens the models that functions of `lucidlm` look into, on their device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.arguments import require_path
from lucidlm.core.devices import choose_compute
from lucidlm.core.matmul import fast_matmul

Model = str | Path | LoadedModel
"""A model directory or another source of a model, or one that `load_model` opened."""


@contextmanager
def opened(model: Model, device: str) -> Iterator[LoadedModel]:
    """Give the model on its device; products of large matrices are taken from the faster library meanwhile.

    Raises
    ------
    InputError: there is no such device or model.
    """
    place = choose_compute(device).device
    loaded = model if isinstance(model, LoadedModel) else load_model(require_path(model, "model"))
    loaded.model.to(place)
    with fast_matmul(place):
        yield loaded
