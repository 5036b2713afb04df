"""The server as an ASGI application."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lucidlm.serve import errors, page
from lucidlm.serve.access import AccessGuard, read_keys
from lucidlm.serve.config import ServeConfig
from lucidlm.serve.endpoints import chat, completions, explain, health, inspect, responses, tasks, tokens, vectors
from lucidlm.serve.limits import RequestLimits
from lucidlm.serve.measures import Measures
from lucidlm.serve.models import Models
from lucidlm.serve.runs import runs_router
from lucidlm.serve.state import ServerState
from lucidlm.version import __version__

Log = Callable[[dict[str, Any]], None]


def print_line(note: dict[str, Any]) -> None:
    """Log a request as a line of JSON on standard error."""
    print(json.dumps(note, ensure_ascii=False), file=sys.stderr, flush=True)


def create_app(models: Models, config: ServeConfig, log: Log = print_line) -> FastAPI:
    """Return the application; the models are closed when it ends.

    Raises
    ------
    InputError: see `read_keys`.
    """
    keys = read_keys(config)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.accepts = True
        yield
        app.state.accepts = False
        await asyncio.to_thread(models.close)

    app = FastAPI(title="lucidlm", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    measures = Measures(models)
    app.state.server = ServerState(models, config, measures)
    app.state.accepts = False
    errors.install(app)
    routers = (health, completions, chat, responses, vectors, tokens, explain, inspect, page)
    for router in (*(module.router for module in routers), tasks.task_router(models)):
        app.include_router(router)
    if config.runs is not None:
        app.include_router(runs_router(Path(config.runs)))
    # The last one is the first to see a request.
    app.add_middleware(RequestLimits, most=int(config.max_body * 1e6))
    app.add_middleware(AccessGuard, keys=keys, local=config.local)
    app.add_middleware(_RequestLog, measures=measures, log=log)
    return app


class _RequestLog:
    """Measures and logs each request: what came, what became of it and how long it took, but no text."""

    def __init__(self, app: ASGIApp, measures: Measures, log: Log) -> None:
        self._app, self._measures, self._log = app, measures, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 499  # as a client that has gone away gets no answer
        note: dict[str, Any] = {}
        scope.setdefault("state", {})["note"] = note
        request_id = uuid4().hex

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            seconds = time.perf_counter() - begun
            route = scope.get("route")
            path = getattr(route, "path", "") or ("known" if status != 404 else "unknown")
            self._measures.requests.labels(path, str(status)).inc()
            self._measures.seconds.labels(path).observe(seconds)
            if path not in ("/health", "/ready", "/metrics"):
                head = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "id": request_id}
                self._log({**head, "path": scope["path"][:200], "status": status, "seconds": round(seconds, 4), **note})
