"""Who may use the server: bearers of a key; without keys, programs of this machine that call it by its name."""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from lucidlm.core.errors import InputError
from lucidlm.serve.config import ServeConfig
from lucidlm.serve.errors import ApiError

OPEN = ("/", "/health", "/ready")
"""Paths that need no key, as those of the page's own files: none of them says anything of the models."""

PAGE = "/page/"
HASHED = re.compile("sha256:([0-9a-f]{64})")
SHORTEST = 16
"""Characters of a key that nobody guesses."""

LOCAL = re.compile(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?", re.IGNORECASE)
"""Names by which a program of this machine calls the server. A web page from elsewhere that makes its own name point to
this machine (DNS rebinding) calls it by that name."""


def read_keys(config: ServeConfig) -> list[bytes]:
    """Return the SHA-256 of each key; none if there are no keys.

    Raises
    ------
    InputError: the file is missing, or has no key or too short a one; or the server is for other machines too, and there
        are no keys.
    """
    if config.api_keys is None:
        if not config.local:
            what = f"other machines can reach {config.host}, and there are no API keys"
            fix = "Pass --api-keys FILE with a key a line (python -c 'import secrets; print(secrets.token_urlsafe())')."
            raise InputError(what, where="--host", fix=fix)
        return []
    path = Path(config.api_keys)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", where=path) from None
    keys = []
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        if (found := HASHED.fullmatch(line)) is not None:
            keys.append(bytes.fromhex(found[1]))
        elif len(line) < SHORTEST:
            raise InputError(f"a key has {SHORTEST} characters or more", where=f"{path}:{number}")
        else:
            keys.append(sha256(line.encode()).digest())
    if not keys:
        raise InputError("has no key", where=path, fix="Write one a line.")
    return keys


class AccessGuard:
    """Answers requests of those who may not use the server."""

    def __init__(self, app: ASGIApp, keys: Sequence[bytes], local: bool) -> None:
        self._app, self._keys, self._local = app, tuple(keys), local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refused := self._refused(scope["path"], Headers(scope=scope))) is not None:
            await refused.response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refused(self, path: str, headers: Headers) -> ApiError | None:
        if not self._keys:
            if self._local and LOCAL.fullmatch(headers.get("host", "")) is None:
                return ApiError("this server is for programs on its own machine: call it localhost", status=403)
            return None
        if path in OPEN or path.startswith(PAGE) or self._knows(headers.get("authorization", "")):
            return None
        message = "the request has no valid API key: send the header Authorization: Bearer KEY"
        return ApiError(message, status=401, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    def _knows(self, header: str) -> bool:
        scheme, _, key = header.partition(" ")
        digest = sha256(key.strip().encode()).digest()
        known = [hmac.compare_digest(digest, one) for one in self._keys]  # all of them: the time tells nothing
        return scheme.lower() == "bearer" and any(known)
