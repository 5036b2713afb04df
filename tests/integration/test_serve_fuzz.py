"""Requests that are made of the server's own description, right and wrong ones: none of them is an error of the server's."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import torch
from tests.serving import only, running, small_model, small_tokenizer


def test_no_request_breaks_the_server(tmp_path: Path) -> None:
    torch.manual_seed(0)
    program = Path(sys.executable).with_name("schemathesis")
    with running(only(small_model(256), small_tokenizer())) as server:
        options = ["--max-examples", "3", "--seed", "0", "--checks", "not_a_server_error", "--request-timeout", "30"]
        command = [str(program), "run", f"{server.url}/openapi.json", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
        found = Counter(note["status"] for note in server.notes)
        with server.client() as client:
            assert client.get("/health").status_code == 200
    assert done.returncode == 0, done.stdout[-3000:]
    assert found[200] > 20
    assert found[400] > 100
    assert not [status for status in found if status >= 500]
