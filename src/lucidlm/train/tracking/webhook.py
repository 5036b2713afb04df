"""A webhook: one JSON object is posted to an address when a run ends.

The address is a secret, as it mostly holds a token: it is a part of no configuration, and no message shows more of it than
the host.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from http.client import HTTPException
from time import sleep
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from pydantic import SecretStr

from lucidlm.core.errors import InputError
from lucidlm.core.progress import log
from lucidlm.version import __version__

VARIABLE = "LUCIDLM_WEBHOOK"
TIMEOUT = 5.0
"""Seconds that an attempt may take."""
PAUSES = (1.0, 3.0)
"""Seconds before the second attempt and the third."""
BUSY = (408, 425, 429)
"""Answers, beside those of a server that fails, after which it is tried again."""


def read_webhook(given: str | None) -> SecretStr | None:
    """Return the address `given`, or the one in the environment, or None.

    Raises
    ------
    InputError: it is no http(s) address; the message does not show it.
    """
    address, where = (os.environ.get(VARIABLE), VARIABLE) if given is None else (given, "--webhook")
    if not address:
        return None
    try:
        parts = urlsplit(address)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or not address.isascii() or not address.isprintable() or " " in address:
        raise InputError("is no address of the web", where=where, fix="Pass one like https://example.com/hook.")
    return SecretStr(address)


def post(address: SecretStr, content: Mapping[str, Any]) -> None:
    """Post `content` as JSON, in three attempts; where none succeeds, a line on standard error says so."""
    body, url = json.dumps(content, ensure_ascii=False).encode(), address.get_secret_value()
    headers = {"Content-Type": "application/json", "User-Agent": f"lucidlm/{__version__}"}
    for pause in (*PAUSES, None):
        try:
            with _OPENER.open(Request(url, body, headers), timeout=TIMEOUT):
                return
        except HTTPError as error:
            error.close()
            problem, again = f"it answered {error.code}", error.code >= 500 or error.code in BUSY
        except (OSError, HTTPException, ValueError) as error:  # their messages may hold parts of the address
            reason = error.reason if isinstance(error, URLError) else error
            problem, again = type(reason).__name__, True
        if pause is None or not again:
            log(f"the webhook at {urlsplit(url).hostname} does not know how the run ended ({problem})")
            return
        sleep(pause)


class _NoRedirects(HTTPRedirectHandler):
    """The address says where a message goes, and nobody else."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = build_opener(_NoRedirects)
