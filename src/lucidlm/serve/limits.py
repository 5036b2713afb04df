"""What a single request may take: bytes of a body, and time to send it and to read the answer."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lucidlm.serve.errors import ApiError

PATIENCE = 30.0
"""Seconds within which a body has to arrive, and within which a client has to read what is sent."""


class RequestLimits:
    """Reads the whole body before anything else does, and refuses one that is too large or too slow.

    Parameters
    ----------
    most: bytes of a body.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(PATIENCE):
                body = await self._body(receive)
        except (ApiError, TimeoutError) as error:
            late = ApiError(f"the body did not arrive within {PATIENCE:.0f} seconds", status=408)
            refused = error if isinstance(error, ApiError) else late
            await refused.response(scope, receive, send)
            return
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def patient(message: Message) -> None:
            async with asyncio.timeout(PATIENCE):
                await send(message)

        await self._app(scope, replay, patient)

    async def _body(self, receive: Receive) -> bytes:
        parts, size = [], 0
        while True:
            message = await receive()
            part = message.get("body", b"")
            size += len(part)
            if size > self._most:
                what = f"the body is larger than {self._most:,} bytes"
                raise ApiError(what, status=413, headers={"Connection": "close"})
            parts.append(part)
            if message["type"] != "http.request" or not message.get("more_body", False):
                return b"".join(parts)
