"""Servers in processes of their own, and clients that read texts from them as streams, for the benchmarks of serving."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import psutil

PATIENCE = 300.0


@dataclass(frozen=True)
class Streamed:
    """A text as a client got it; times in seconds from the request on.

    Parameters
    ----------
    whole: whether it came to its end.
    """

    text: str
    first: float
    last: float
    whole: bool


async def stream(client: httpx.AsyncClient, body: dict[str, object], leave_after: int | None = None) -> Streamed:
    """Ask for a completion and read it; go away after so many characters, if that is said."""
    began, first, text = time.perf_counter(), 0.0, ""
    async with client.stream("POST", "/v1/completions", json={**body, "stream": True}) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            found = json.loads(line.removeprefix("data: "))
            if "error" in found:
                raise RuntimeError(found["error"])
            piece = found["choices"][0].get("text") or "" if found["choices"] else ""
            if piece and not first:
                first = time.perf_counter() - began
            text += piece
            if leave_after is not None and len(text) >= leave_after:
                return Streamed(text, first, time.perf_counter() - began, False)
    return Streamed(text, first, time.perf_counter() - began, True)


async def clients(url: str, count: int, bodies: Sequence[dict[str, object]]) -> list[Streamed]:
    """Let so many clients ask for all of `bodies`, each for one after the other; return the answers in order."""
    # A connection for each request: llama.cpp's server may close one just when it is used again.
    limits = httpx.Limits(max_connections=count, max_keepalive_connections=0)
    left, found = iter(enumerate(bodies)), dict[int, Streamed]()

    async def one(client: httpx.AsyncClient) -> None:
        for number, body in left:
            found[number] = await stream(client, body)

    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=limits) as client:
        await asyncio.gather(*(one(client) for _ in range(count)))
    return [found[number] for number in range(len(bodies))]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def serving(command: Sequence[str], url: str) -> Iterator[psutil.Process]:
    """Give the process of a server, once it answers; it ends when this is left.

    Raises
    ------
    RuntimeError: it has ended by itself.
    """
    with (
        tempfile.TemporaryFile() as errors,  # a pipe that nobody reads would stop the server once it is full
        subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=errors) as process,
    ):
        end = time.monotonic() + PATIENCE
        while True:
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                errors.seek(0)
                raise RuntimeError(errors.read().decode()[-2000:])
            try:
                httpx.get(f"{url}/v1/models", timeout=5)  # transformers fails at it where nothing was ever downloaded
                break
            except httpx.TransportError:
                time.sleep(0.5)
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
