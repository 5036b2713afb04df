"""A server holds: clients that go away, steps that fail or hang, more requests than it takes, keys, limits."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from tests.serving import Server, only, running, small_model, small_tokenizer, wait_until
from torch import Tensor

from lucidlm.core.errors import InputError
from lucidlm.inference.config import SamplingConfig
from lucidlm.inference.decode import generate
from lucidlm.inference.engine import loop as loop_module
from lucidlm.inference.engine.backend import Stretch
from lucidlm.inference.engine.torch_backend import TorchBackend
from lucidlm.serve import limits, writing
from lucidlm.serve.access import read_keys
from lucidlm.serve.config import ServeConfig

ENDLESS = {"prompt": "the", "max_tokens": 1_000_000, "temperature": 1.0, "stream": True, "logit_bias": {"0": -100}}
KEY = "correct-horse-battery"


class Controlled(TorchBackend):
    """A backend whose steps fail or hang as a test wants."""

    fails = False
    may_go_on = threading.Event()

    def read(self, stretches: Sequence[Stretch]) -> Tensor:
        assert self.may_go_on.wait(60)
        if type(self).fails:
            type(self).fails = False
            raise RuntimeError("out of memory, say")
        return super().read(stretches)


@pytest.fixture
def controlled(monkeypatch: pytest.MonkeyPatch) -> type[Controlled]:
    Controlled.fails = False
    Controlled.may_go_on.set()
    monkeypatch.setattr(writing, "open_backend", lambda model, *_: Controlled(model, 4096))
    return Controlled


def engine(server: Server) -> Any:
    writer = next(iter(server.models)).writer
    assert writer is not None
    return writer.engine


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))


def idle(server: Server) -> bool:
    return engine(server).running == 0 and engine(server).waiting == 0 and engine(server).used_blocks == 0


def test_a_client_that_goes_away_frees_its_place() -> None:
    with running(only(small_model(100_000), small_tokenizer())) as server, server.client() as client:
        for stream in (True, False):
            # without a stream only the end of the connection tells
            body = json.dumps({**ENDLESS, "stream": stream}).encode()
            with connected(server) as raw:
                head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
                raw.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
                wait_until(lambda: engine(server).running == 1)
            wait_until(lambda: idle(server))
        assert client.post("/v1/completions", json={"prompt": "the", "max_tokens": 2}).status_code == 200


def test_a_step_that_fails_is_told_and_the_server_goes_on(controlled: type[Controlled]) -> None:
    with running(only(small_model(), small_tokenizer())) as server, server.client() as client:
        controlled.fails = True
        answer = client.post("/v1/completions", json={"prompt": "the", "max_tokens": 5})
        assert answer.status_code == 500
        assert answer.json()["error"]["type"] == "server_error"
        assert "memory" not in answer.text
        with client.stream("POST", "/v1/completions", json={**ENDLESS, "max_tokens": 2000}) as stream:
            lines = stream.iter_lines()
            assert "data: " in next(lines)
            controlled.fails = True
            assert any('"server_error"' in line for line in lines)
        assert client.post("/v1/completions", json={"prompt": "the", "max_tokens": 5}).status_code == 200
        assert client.get("/health").status_code == 200
        wait_until(lambda: idle(server))


def test_health_says_when_a_step_hangs(controlled: type[Controlled], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "STUCK", 0.05)
    with running(only(small_model(), small_tokenizer())) as server, server.client() as client:
        controlled.may_go_on.clear()
        with Posting(server):
            wait_until(lambda: client.get("/health").status_code == 503)
            assert client.get("/health").json()["models"] == {"tiny": "stuck"}
            assert client.get("/ready").status_code == 200
            controlled.may_go_on.set()
        wait_until(lambda: client.get("/health").status_code == 200)


class Posting:
    """A request in a thread of its own."""

    def __init__(self, server: Server) -> None:
        self._thread = threading.Thread(target=self._post, args=(server,))

    def _post(self, server: Server) -> None:
        with server.client() as client:
            client.post("/v1/completions", json={"prompt": "the", "max_tokens": 3})

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join(60)


def test_more_than_the_queue_holds_is_turned_away(controlled: type[Controlled]) -> None:
    models = only(small_model(), small_tokenizer(), max_running=2, max_waiting=1)
    with running(models, max_running=2, max_waiting=1) as server, server.client() as client:
        controlled.may_go_on.clear()
        with Posting(server), Posting(server), Posting(server):
            wait_until(lambda: models.named("tiny").writer._taken == 3)  # pyright: ignore[reportOptionalMemberAccess]
            answer = client.post("/v1/completions", json={"prompt": "the"})
            assert answer.status_code == 429
            assert int(answer.headers["retry-after"]) > 0
            assert answer.json()["error"]["code"] == "queue_full"
            streamed = client.post("/v1/completions", json={"prompt": "the", "stream": True})
            assert streamed.status_code == 429
            controlled.may_go_on.set()
        assert client.post("/v1/completions", json={"prompt": "the"}).status_code == 200


def test_an_answer_that_takes_too_long(controlled: type[Controlled]) -> None:
    with running(only(small_model(), small_tokenizer()), timeout=0.2) as server, server.client() as client:
        controlled.may_go_on.clear()
        assert client.post("/v1/completions", json={"prompt": "the"}).status_code == 504
        controlled.may_go_on.set()
        wait_until(lambda: idle(server))


def test_texts_of_many_clients_are_not_mixed() -> None:
    torch.manual_seed(1)
    model, tokenizer = small_model(), small_tokenizer()
    prompts = [f"the {word} {number}" for number in range(16) for word in ("quick", "lazy")]
    config = SamplingConfig(length=40, temperature=0)
    right = [one.text for one in generate(model, tokenizer, prompts, config)]

    async def ask(client: httpx.AsyncClient, number: int) -> str:
        body = {"prompt": prompts[number], "max_tokens": 40, "temperature": 0, "stream": True}
        text = ""
        async with client.stream("POST", "/v1/completions", json=body) as stream:
            async for line in stream.aiter_lines():
                if number % 4 == 3 and len(text) > 10:
                    return text
                if line.startswith("data: {"):
                    text += json.loads(line.removeprefix("data: "))["choices"][0]["text"]
        return text

    async def all_of_them(url: str) -> list[str]:
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=64)) as client:
            return list(await asyncio.gather(*(ask(client, number) for number in range(len(prompts)))))

    with running(only(model, tokenizer)) as server:
        found = asyncio.run(all_of_them(server.url))
        for number, text in enumerate(found):
            assert right[number].startswith(text) if number % 4 == 3 else text == right[number]
        wait_until(lambda: idle(server))


def test_nothing_that_was_said_is_logged_unless_asked() -> None:
    models = only(small_model(), small_tokenizer())
    with running(models) as server, server.client() as client:
        client.post("/v1/completions", json={"prompt": "the lazy secret", "max_tokens": 3, "temperature": 0})
        wait_until(lambda: server.notes)
        assert "secret" not in json.dumps(server.notes)
        assert server.notes[0]["prompt_tokens"] > 0
        assert server.notes[0]["tokens"] == 3
    with running(only(small_model(), small_tokenizer()), log_texts=True) as server, server.client() as client:
        client.post("/v1/completions", json={"prompt": "the lazy secret", "max_tokens": 3, "temperature": 0})
        wait_until(lambda: server.notes)
        assert server.notes[0]["prompts"] == ["the lazy secret"]


def test_measures() -> None:
    with running(only(small_model(), small_tokenizer())) as server, server.client() as client:
        client.post("/v1/completions", json={"prompt": "the", "max_tokens": 3, "temperature": 0})
        wait_until(lambda: server.notes)
        found = client.get("/metrics").text
        assert 'lucidlm_written_tokens_total{model="tiny"} 3.0' in found
        assert 'lucidlm_requests_total{path="/v1/completions",status="200"} 1.0' in found
        assert 'lucidlm_running_texts{model="tiny"} 0.0' in found
        assert 'lucidlm_first_token_seconds_count{model="tiny"} 1.0' in found


# ---------------------------------------------------------------------- who may, and how much


def test_keys(tmp_path: Path) -> None:
    keys = tmp_path / "keys.txt"
    hashed = sha256(b"another-key-that-is-long").hexdigest()
    keys.write_text(f"# ours\n{KEY}\n\nsha256:{hashed}\n")
    with running(only(small_model(), small_tokenizer()), api_keys=str(keys)) as server, server.client() as client:
        for path in ("/v1/models", "/metrics", "/openapi.json"):
            assert client.get(path).status_code == 401, path
        refused = client.post("/v1/completions", json={"prompt": "the"}, headers={"Authorization": "Bearer wrong"})
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
        for path in ("/", "/health", "/ready"):
            assert client.get(path).status_code == 200
        for key in (KEY, "another-key-that-is-long"):
            assert client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        assert client.get("/v1/models", headers={"Authorization": f"Bearer sha256:{hashed}"}).status_code == 401


def test_there_are_keys_where_others_can_reach_the_server(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no API keys"):
        read_keys(ServeConfig(host="0.0.0.0"))
    for host in ("127.0.0.1", "localhost", "::1"):
        assert read_keys(ServeConfig(host=host)) == []
    keys = tmp_path / "keys.txt"
    for text, message in (("short\n", "16 characters"), ("# none\n", "has no key")):
        keys.write_text(text)
        with pytest.raises(InputError, match=message):
            read_keys(ServeConfig(api_keys=str(keys)))
    with pytest.raises(InputError, match="cannot be read"):
        read_keys(ServeConfig(api_keys=str(tmp_path / "none.txt")))


def test_a_name_from_elsewhere_that_points_here_is_refused() -> None:
    with running(only(small_model(), small_tokenizer())) as server, server.client() as client:
        assert client.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403
        assert client.get("/v1/models", headers={"Host": "localhost:8000"}).status_code == 200
        assert (
            "access-control-allow-origin"
            not in client.get("/v1/models", headers={"Origin": "http://evil.example"}).headers
        )


def test_bodies_that_are_too_large() -> None:
    with running(only(small_model(), small_tokenizer()), max_body=0.01) as server, server.client() as client:
        answer = client.post("/v1/completions", content=b" " * 20_000, headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
        assert "10,000 bytes" in answer.json()["error"]["message"]
        assert client.get("/health").status_code == 200


def test_bodies_that_do_not_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PATIENCE", 0.2)
    with running(only(small_model(), small_tokenizer())) as server, connected(server) as raw:
        raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert b"408" in raw.recv(1000)


def test_errors_of_paths_and_methods() -> None:
    with running(only(small_model(), small_tokenizer())) as server, server.client() as client:
        assert client.get("/nothing").json()["error"]["type"] == "not_found_error"
        assert client.get("/v1/completions").status_code == 405
        assert client.get("/v1/models/another").json()["error"]["code"] == "model_not_found"
        assert client.get("/page/..%2Fapp.py").status_code == 404
