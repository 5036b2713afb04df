"""Errors as OpenAI's clients expect them: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from http import HTTPStatus
from traceback import format_exception
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from lucidlm.core.errors import LucidError
from lucidlm.core.progress import log

TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
"""What OpenAI calls errors of a status; other mistakes of the caller's are `invalid_request_error`."""

FILTERED = "content_filter"
"""What OpenAI calls what a guard has stopped."""

LONGEST = 200
"""Characters of a value that a message quotes."""


class ApiError(Exception):
    """What is wrong with a request, or why it cannot be answered.

    Parameters
    ----------
    param: the field that is wrong.
    code: a word for programs to look at.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code, self.headers = message, status, param, code, headers

    @property
    def body(self) -> dict[str, Any]:
        """The error as JSON."""
        usual = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = TYPES.get(self.status, usual)
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def response(self) -> JSONResponse:
        """The error as a whole response."""
        return JSONResponse(self.body, self.status, self.headers)


def queue_full(message: str, seconds: int) -> ApiError:
    """Return the error of a request that may come again after some seconds."""
    return ApiError(message, status=429, code="queue_full", headers={"Retry-After": str(seconds)})


def not_passed(param: str | None) -> ApiError:
    """Return the error of what a guard has not let through; why is not told, or it could be tried until it passes."""
    return ApiError(f"{param or 'the answer'}: the server's guard does not let it through", param=param, code=FILTERED)


def as_api_error(error: BaseException) -> ApiError:
    """Return any error as one that is told; of what is our fault only that it is, and the rest is logged."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, LucidError) and error.exit_code == 2:
        return ApiError(str(error))
    if isinstance(error, TimeoutError):
        return ApiError("the answer took longer than the server allows", status=504, code="timeout")
    log("".join(format_exception(error)))
    return ApiError("something failed in the server; its log says what", status=500, code="internal_error")


def install(app: FastAPI) -> None:
    """Let `app` answer every error in this form."""

    async def told(_: Request, error: Exception) -> JSONResponse:
        return as_api_error(error).response

    async def unread(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return _unread(error).response

    async def of_http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        message = {404: "there is no such path", 405: "the path does not take this method"}.get(error.status_code)
        if message is None:
            message = str(error.detail) if error.detail else HTTPStatus(error.status_code).phrase
        headers = dict(error.headers) if error.headers else None
        return ApiError(message, status=error.status_code, headers=headers).response

    app.add_exception_handler(RequestValidationError, unread)
    app.add_exception_handler(HTTPException, of_http)
    for kind in (ApiError, LucidError, TimeoutError, Exception):
        app.add_exception_handler(kind, told)


def _unread(error: RequestValidationError) -> ApiError:
    """Return what is wrong with a body, or with a path, in one sentence that names each field once."""
    found: dict[str, str] = {}
    for one in error.errors():
        place = [str(part) for part in one["loc"][1:] if isinstance(part, int) or str(part).isidentifier()]
        field = ".".join(place)
        if one["type"] == "extra_forbidden":
            message = "is not supported here"
        elif one["type"] == "json_invalid":
            field, message = "", "the body is no valid JSON"
        else:
            message = one["msg"].removeprefix("Value error, ")
        found.setdefault(field, message)
    said = "; ".join(f"{field}: {message}" if field else message for field, message in list(found.items())[:5])
    first = next(iter(found), "")
    return ApiError(said[: 5 * LONGEST], param=first or None)
