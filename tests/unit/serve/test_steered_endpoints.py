"""Requests that choose how strongly they are steered, by the vectors that the server was started with."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.serving import TORCH, Server, in_memory, only, running, small_model, small_tokenizer

from lucidlm.control.steering import SteeringVector, identity, steer
from lucidlm.core.errors import InputError
from lucidlm.inference.config import SamplingConfig
from lucidlm.inference.decode import generate
from lucidlm.model.heads import LanguageModel
from lucidlm.serve.config import ServeConfig
from lucidlm.serve.models import serve_model
from lucidlm.tokenize.tokenizer import Tokenizer

ASKED: dict[str, Any] = {"prompt": "the quick", "max_tokens": 20, "temperature": 0, "logit_bias": {"0": -100}}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, model = tmp_path_factory.mktemp("vectors"), made()
    for index, name in enumerate(("glad", "terse")):
        direction = 10 * torch.randn(32, generator=torch.Generator().manual_seed(index))
        SteeringVector(direction, 0, identity(model), 1.0, 8).save(folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in ("glad", "terse")}


def made() -> LanguageModel:
    torch.manual_seed(0)
    return small_model()


@pytest.fixture(scope="module")
def server(vectors: dict[str, Path], tokenizer: Tokenizer) -> Iterator[Server]:
    given = (f"{vectors['glad']}=1.5", f"{vectors['terse']}=0")
    with running(only(made(), tokenizer, steer=given)) as server:
        yield server


def text(server: Server, **asked: Any) -> str:
    with server.client() as client:
        answer = client.post("/v1/completions", json={**ASKED, **asked})
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def expected(vectors: dict[str, Path], tokenizer: Tokenizer, **strengths: float) -> str:
    model, config = made(), SamplingConfig(length=20, temperature=0, logit_bias=((0, -100.0),))
    for name, strength in strengths.items():
        steer(model, SteeringVector.load(vectors[name]), strength)
    return generate(model, tokenizer, [ASKED["prompt"]], config)[0].text


def test_a_request_chooses_how_strongly_it_is_steered(
    server: Server, vectors: dict[str, Path], tokenizer: Tokenizer
) -> None:
    asked: list[tuple[dict[str, Any], dict[str, float]]] = [
        ({}, {"glad": 1.5}),
        ({"steer": {}}, {"glad": 1.5}),
        ({"steer": {"glad": 0}}, {}),
        ({"steer": {"glad": -2.0}}, {"glad": -2.0}),
        ({"steer": {"terse": 1}}, {"glad": 1.5, "terse": 1.0}),
        ({"steer": {"glad": 0, "terse": -3}}, {"terse": -3.0}),
    ]
    texts = [expected(vectors, tokenizer, **strengths) for _, strengths in asked]
    assert len(set(texts)) >= 4
    assert [text(server, **fields) for fields, _ in asked] == texts
    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(lambda one: text(server, **one[0]), [*asked, *asked]))
    assert together == [*texts, *texts]


def test_chat_and_responses_take_it_too(vectors: dict[str, Path], tokenizer: Tokenizer) -> None:
    with running(only(made(), tokenizer, steer=(f"{vectors['glad']}=0",))) as server, server.client() as client:
        said = {}
        for strength in (0, 2):
            chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 12, "temperature": 0}
            new = {"input": "hi", "max_output_tokens": 12, "temperature": 0}
            answers = [
                client.post(f"/v1/{path}", json={**asked, "steer": {"glad": strength}})
                for path, asked in (("chat/completions", chat), ("responses", new))
            ]
            assert [one.status_code for one in answers] == [200, 200], [one.text for one in answers]
            reply = answers[0].json()["choices"][0]["message"]["content"]
            assert answers[1].json()["output"][0]["content"][0]["text"] == reply
            said[strength] = reply
    assert said[0] != said[2]


@pytest.mark.parametrize(
    ("steer", "message"),
    [
        ({"sad": 1}, "steer: there is no vector 'sad'; there is glad, terse"),
        ({"glad": 101}, "steer.glad: Input should be less than or equal to 100"),
        ({"glad": -101}, "steer.glad: Input should be greater than or equal to -100"),
        ({"glad": "1"}, "steer.glad: Input should be a valid number"),
        ([1], "steer: Input should be a valid dictionary"),
    ],
)
def test_what_cannot_be_is_refused(server: Server, steer: Any, message: str) -> None:
    with server.client() as client:
        answers = [
            client.post("/v1/completions", json={**ASKED, "steer": steer}),
            client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "a"}], "steer": steer}),
            client.post("/v1/responses", json={"input": "a", "steer": steer}),
        ]
    for answer in answers:
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["message"] == message
        assert answer.json()["error"]["param"].startswith("steer")


def test_without_vectors_there_is_nothing_to_steer_by(tokenizer: Tokenizer) -> None:
    with running(only(made(), tokenizer)) as server, server.client() as client:
        answer = client.post("/v1/completions", json={**ASKED, "steer": {"glad": 1}})
        assert answer.status_code == 400
        assert "the server was started without any" in answer.json()["error"]["message"]
        assert client.get("/v1/models/tiny").json()["steering"] == {}


def test_the_models_say_what_they_may_be_steered_by(server: Server) -> None:
    with server.client() as client:
        assert client.get("/v1/models/tiny").json()["steering"] == {"glad": 1.5, "terse": 0.0}
        fields = client.get("/openapi.json").json()["components"]["schemas"]
    for name in ("CompletionRequest", "ChatRequest", "ResponsesRequest"):
        assert "steer" in fields[name]["properties"]


def test_embeddings_are_steered_as_the_server_is_set(vectors: dict[str, Path], tokenizer: Tokenizer) -> None:
    def vector(*given: str) -> list[float]:
        with running(only(made(), tokenizer, steer=given)) as server, server.client() as client:
            answer = client.post("/v1/embeddings", json={"input": "the fox"})
        assert answer.status_code == 200, answer.text
        return answer.json()["data"][0]["embedding"]

    plain = vector()
    assert vector(f"{vectors['glad']}=0") == pytest.approx(plain, abs=1e-6)
    assert vector(f"{vectors['glad']}=3") != pytest.approx(plain, abs=1e-3)


def test_names_are_told_apart(vectors: dict[str, Path], tokenizer: Tokenizer) -> None:
    given = (f"{vectors['glad']}=1", f"{vectors['glad']}=2")
    with pytest.raises(InputError, match="two vectors are called glad"):
        serve_model("tiny", in_memory(made(), tokenizer), ServeConfig(steer=given), TORCH)
