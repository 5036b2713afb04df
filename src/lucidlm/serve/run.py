"""A server on a port, until it is told to stop."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from lucidlm.core.errors import InputError
from lucidlm.core.progress import log
from lucidlm.inference.config import EngineConfig
from lucidlm.serve.access import read_keys
from lucidlm.serve.app import create_app
from lucidlm.serve.config import ServeConfig
from lucidlm.serve.models import open_models

IDLE = 30
"""Seconds that a connection is kept open without a request."""


def run(sources: Sequence[str], config: ServeConfig, engine: EngineConfig, device: str = "auto") -> None:
    """Serve models until SIGINT or SIGTERM; running requests have `config.grace` seconds to end in.

    Raises
    ------
    InputError: a source is no model, the address cannot be listened on, there should be keys and are none, or there is no
        such folder of runs.
    """
    read_keys(config)
    if config.runs is not None and not Path(config.runs).is_dir():
        raise InputError("there is no such folder", where=config.runs, fix="Pass the folder that runs are left in.")
    with _listening(config.host, config.port) as listener:
        models = open_models(sources, config, engine, device)
        app = create_app(models, config)
        host = f"[{config.host}]" if ":" in config.host else config.host
        log(f"serving on http://{host}:{listener.getsockname()[1]} (Ctrl-C stops)")
        settings = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=max(1, int(config.grace)),
            timeout_keep_alive=IDLE,
            server_header=False,
        )
        uvicorn.Server(settings).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens there, before any model is loaded.

    Raises
    ------
    InputError: the port is taken, or the address is not this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        fix = "Pass another --port, or 0 for any that is free."
        raise InputError(f"cannot listen there ({error.strerror or error})", where=f"{host}:{port}", fix=fix) from None
