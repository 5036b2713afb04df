"""Answers in pieces: server-sent events, and answers that are given up when nobody waits for them any more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse

from lucidlm.serve.errors import ApiError, as_api_error

T = TypeVar("T")

DONE = "data: [DONE]\n\n"


def event(data: dict[str, Any], name: str | None = None) -> str:
    """Return an event as it is sent."""
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


async def sent(request: Request, events: AsyncGenerator[str, None], seconds: float) -> StreamingResponse:
    """Return a response that sends `events`; what goes wrong after the first is an event itself, before it an error.

    Parameters
    ----------
    seconds: that all of it may take.

    Raises
    ------
    ApiError: the client went away before the first event.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    try:
        first = await unless_gone(request, anext(events), seconds)
    except BaseException:
        await events.aclose()
        raise

    async def body() -> AsyncIterator[str]:
        async with aclosing(events):
            try:
                yield first
                while True:
                    async with asyncio.timeout_at(deadline):
                        piece = await anext(events)
                    yield piece
            except StopAsyncIteration:
                return
            except Exception as error:
                yield event(as_api_error(error).body)

    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(body(), media_type="text/event-stream", headers=headers)


async def unless_gone(request: Request, answer: Awaitable[T], seconds: float) -> T:
    """Return what `answer` gives, which is cancelled when the client goes away or when it takes longer than `seconds`.

    Raises
    ------
    ApiError: the client is gone.
    TimeoutError: it took too long.
    """
    answering = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(_gone(request))
    try:
        async with asyncio.timeout(seconds):
            await asyncio.wait((answering, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ApiError("the client has gone away", status=499)
        return answering.result()
    finally:
        gone.cancel()
        if not answering.done():
            answering.cancel()
            await asyncio.wait((answering,))


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
