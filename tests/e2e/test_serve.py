"""`lucidlm serve` as a program: it answers, lets streams end when it is stopped, and refuses what it cannot do."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

WAIT = 120


@contextmanager
def serving(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Give the process and its address; it is killed at the end if it has not ended."""
    command = [sys.executable, "-m", "lucidlm", "serve", *map(str, arguments), "--backend", "torch"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"}) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if found := re.search(r"http://\S+:\d+", line):
                    yield process, found[0]
                    break
            else:
                raise AssertionError("it ended before it was there")
        finally:
            process.kill()


def refused(*arguments: object) -> str:
    command = [sys.executable, "-m", "lucidlm", "serve", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
def test_a_stream_that_runs_may_end(tiny_model: Path, signal_: signal.Signals) -> None:
    with serving(f"small={tiny_model}", "--port", 0) as (process, url):
        body = {"prompt": "the film", "max_tokens": 60, "stream": True, "temperature": 0, "logit_bias": {"0": -100}}
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=WAIT) as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith("data: {")
            process.send_signal(signal_)
            assert [line for line in lines if line][-1] == "data: [DONE]"
        assert process.wait(WAIT) in (0, -signal_, 128 + signal_)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/health")


def test_what_cannot_be_served(tiny_model: Path, tmp_path: Path) -> None:
    assert "no API keys" in refused(tiny_model, "--host", "0.0.0.0")
    assert "no such model" in refused(tmp_path / "nothing", "--port", 0)
    assert "should be MODEL:LABEL<BOUND" in refused(tiny_model, "--guard", "judge")
    assert "not a classifier" in refused(tiny_model, "--port", 0, "--guard", f"{tiny_model}:bad<0.5")
    assert "two models are called model" in refused(tiny_model, f"model={tiny_model}", "--port", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "cannot listen there" in refused(tiny_model, "--port", taken.getsockname()[1])
