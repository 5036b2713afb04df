"""Looking into a served model beside all else that it answers: on modules of its own, and no longer than somebody waits."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from threading import Event
from typing import Any, TypeVar

from fastapi import Request

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.explain.inside.trace import backbone_of
from lucidlm.model.heads import twin
from lucidlm.serve.errors import ApiError
from lucidlm.serve.events import unless_gone
from lucidlm.serve.models import ServedModel
from lucidlm.serve.state import state_of

T = TypeVar("T")


async def look_into(request: Request, model: ServedModel, find: Callable[[LoadedModel], T]) -> T:
    """Return what `find` finds in a twin of the model, whose hooks are not met by what the served one answers meanwhile.

    It takes long, so it waits for others of its kind only. Once the client has gone away or the time is up, the twin reads
    nothing more.

    Raises
    ------
    ApiError: too many are waiting already, or the client is gone.
    TimeoutError: it took too long.
    """
    left = Event()
    try:
        answer = model.call(lambda: find(_apart(model.loaded, left)), explains=True)
        return await unless_gone(request, answer, state_of(request).config.timeout)
    finally:
        left.set()


def as_field_error(error: InputError, fields: Collection[str]) -> Exception:
    """Return an error as one of a field of the request, if it is that."""
    param = (error.where or "").lstrip("-").replace("-", "_").lower()
    if param not in fields:
        return error
    advice = f" {error.fix}" if error.fix else ""
    return ApiError(f"{param}: {error.what}.{advice}", param=param)


class _NobodyWaits(Exception):
    """The answer is not wanted any more."""


def _apart(loaded: LoadedModel, left: Event) -> LoadedModel:
    """Return a twin of a model, which reads nothing more once `left` is set."""
    model = twin(loaded.model)

    def go_on(*_: Any) -> None:
        if left.is_set():
            raise _NobodyWaits

    backbone_of(model).register_forward_pre_hook(go_on)
    return replace(loaded, model=model)
