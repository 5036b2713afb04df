"""A server in a thread, for tests that talk to it as its users do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.inference.config import EngineConfig
from lucidlm.inference.guard import Guard
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.serve.app import create_app
from lucidlm.serve.config import ServeConfig
from lucidlm.serve.models import Models, serve_model
from lucidlm.tokenize.tokenizer import Tokenizer

TORCH = EngineConfig(backend="torch")
WAIT = 60.0
"""Seconds after which a test has failed."""


class Server:
    """A running server, and what it has logged."""

    def __init__(self, models: Models, **settings: Any) -> None:
        self.models, self.notes = models, list[dict[str, Any]]()
        self.app = create_app(models, ServeConfig(**settings), self.notes.append)
        self._server = uvicorn.Server(
            uvicorn.Config(self.app, port=0, log_level="warning", access_log=False, timeout_graceful_shutdown=10)
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def start(self) -> None:
        self._thread.start()
        wait_until(lambda: self._server.started)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(WAIT)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    def client(self, **settings: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=WAIT, **settings)


@contextmanager
def running(models: Models, **settings: Any) -> Iterator[Server]:
    """Give a server of `models`; `settings` are those of `ServeConfig`."""
    server = Server(models, **settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def wait_until(condition: Any) -> None:
    """Wait until something is so."""
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.005)


def in_memory(model: LanguageModel, tokenizer: Tokenizer) -> LoadedModel:
    """Return a language model as if it had been loaded."""
    return LoadedModel(model.eval(), tokenizer, {"kind": "language", "provenance": {}}, source="in memory")


def only(
    model: LanguageModel, tokenizer: Tokenizer, name: str = "tiny", guard: Guard | None = None, **settings: Any
) -> Models:
    """Return models that are this one."""
    return Models({name: serve_model(name, in_memory(model, tokenizer), ServeConfig(**settings), TORCH, guard)})


def small_tokenizer() -> Tokenizer:
    return Tokenizer.train_bpe(["the quick brown fox jumps over the lazy dog." * 3], 280)


def small_model(context: int = 2048) -> LanguageModel:
    """A model that nobody has trained."""
    shape: dict[str, Any] = {"embedding_dim": 32, "num_heads": 2, "ff_dim": 48, "num_layers": 1}
    return LanguageModel(ModelConfig(vocab_size=300, context_length=context, **shape)).eval()
