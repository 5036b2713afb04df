"""Looks inside models over HTTP: what the Python functions find, beside all else that a server does."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.guards import WordGuard
from tests.serving import TORCH, Server, in_memory, only, running, small_model, small_tokenizer, wait_until

import lucidlm
from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, SpanExtractor
from lucidlm.serve.config import ServeConfig
from lucidlm.serve.endpoints import inspect as endpoint
from lucidlm.serve.models import MOST_CALLS, Models, serve_model
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import finetune

TEXT = "the quick brown fox"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, reviews_csv: Path) -> dict[str, LoadedModel]:
    judge = tmp_path_factory.mktemp("inspect") / "judge"
    finetune(
        FinetuneConfig(task="sentiment", model=str(tiny_model), data=str(reviews_csv), epochs=1, device="cpu"), judge
    )
    shape: dict[str, Any] = {"embedding_dim": 32, "num_heads": 2, "ff_dim": 48, "num_layers": 1, "context_length": 128}
    characters = Tokenizer.train_characters(["Who built it?"])
    reader = SpanExtractor(ModelConfig(vocab_size=characters.vocab_size, causal=False, **shape)).eval()
    masked = LanguageModel(ModelConfig(vocab_size=300, causal=False, **shape)).eval()
    return {
        "writer": in_memory(small_model(), small_tokenizer()),
        "judge": load_model(judge),
        "masked": in_memory(masked, small_tokenizer()),
        "reader": LoadedModel(reader, characters, {"kind": "span", "provenance": {}}, source="reader"),
    }


@pytest.fixture(scope="module")
def server(opened: dict[str, LoadedModel]) -> Iterator[Server]:
    models = {name: serve_model(name, one, ServeConfig(), TORCH) for name, one in opened.items()}
    with running(Models(models)) as server:
        yield server


VIEWS: list[tuple[dict[str, Any], Callable[[LoadedModel], Any]]] = [
    ({}, lambda model: lucidlm.inspect.attention(model, TEXT, device="cpu")),
    (
        {"view": "attention", "layer": 0, "head": 1},
        lambda model: lucidlm.inspect.attention(model, TEXT, layer=0, head=1, device="cpu"),
    ),
    ({"view": "lens"}, lambda model: lucidlm.inspect.lens(model, TEXT, device="cpu")),
    ({"view": "norms"}, lambda model: lucidlm.inspect.norms(model, TEXT, device="cpu")),
    ({"view": "logits"}, lambda model: lucidlm.inspect.logits(model, TEXT, device="cpu")),
]


@pytest.mark.parametrize(("asked", "look"), VIEWS, ids=["all heads", "a head", "lens", "norms", "logits"])
@pytest.mark.parametrize("name", ["writer", "judge"])
def test_looks_are_those_of_python(
    server: Server, opened: dict[str, LoadedModel], name: str, asked: dict[str, Any], look: Callable[[LoadedModel], Any]
) -> None:
    expected = json.loads(json.dumps(look(opened[name]).to_dict()))
    with server.client() as client:
        answer = client.post("/v1/inspect", json={"model": name, "text": TEXT, **asked})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found.pop("object"), found.pop("model")) == ("inspection", name)
    assert found.keys() == expected.keys()
    assert (found["view"], found["title"]) == (expected["view"], expected["title"])
    for one, other in zip(found["grids"], expected["grids"], strict=True):
        values = [grid.pop("values") for grid in (one, other)]
        assert one == other
        assert [cell for row in values[0] for cell in row] == pytest.approx(
            [cell for row in values[1] for cell in row], abs=1e-4
        )


def test_masked_models_are_looked_into_too(server: Server) -> None:
    with server.client() as client:
        found = client.post("/v1/inspect", json={"model": "masked", "text": TEXT, "view": "attention"})
    assert found.status_code == 200, found.text
    assert [grid["title"] for grid in found.json()["grids"]] == ["layer 0, head 0", "layer 0, head 1"]


def test_what_can_be_looked_into_is_said(server: Server) -> None:
    with server.client() as client:
        models = {one["id"]: one for one in client.get("/v1/models").json()["data"]}
        described = client.get("/openapi.json").json()
    assert {name for name, one in models.items() if "inspect" in one["abilities"]} == {"writer", "judge", "masked"}
    assert (models["writer"]["layers"], models["writer"]["heads"]) == (1, 2)
    fields = described["components"]["schemas"]["InspectRequest"]["properties"]
    assert {"text", "view", "layer", "head", "target", "foil"} <= fields.keys()
    assert "post" in described["paths"]["/v1/inspect"]


@pytest.mark.parametrize(
    ("asked", "message", "param"),
    [
        ({"text": " "}, "text: is empty", "text"),
        ({}, "text: Field required", "text"),
        ({"text": TEXT, "view": "magic"}, "view: Input should be", "view"),
        ({"text": TEXT, "layer": 1}, "layer: there is no layer 1. The only one is 0.", "layer"),
        ({"text": TEXT, "head": 2}, "head: there is no head 2. Choose 0 to 1.", "head"),
        ({"text": TEXT, "head": -1}, "head", "head"),
        ({"text": TEXT, "view": "lens", "layer": 0}, "layer: is of the view attention, not of lens", "layer"),
        ({"text": TEXT, "view": "attention", "target": "a"}, "target: is of the view logits", "target"),
        ({"text": TEXT, "view": "logits", "target": "the quick"}, "target: 'the quick' is", "target"),
        ({"text": TEXT, "colour": "red"}, "colour: is not supported here", "colour"),
        ({"text": "the fox " * 300, "view": "norms"}, "text: has .* at most 256 are looked at here", "text"),
        ({"model": "masked", "text": TEXT, "view": "logits"}, "text: asks a masked model nothing", "text"),
        ({"model": "reader", "text": TEXT}, "reader cannot do this .inspect.", "model"),
    ],
)
def test_what_is_wrong_is_named(server: Server, asked: dict[str, Any], message: str, param: str) -> None:
    with server.client() as client:
        answer = client.post("/v1/inspect", json={"model": "writer", **asked})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    with pytest.raises(ValueError, match=message):
        raise ValueError(error["message"])
    assert error["param"] == param


def test_more_weights_than_are_sent_are_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MOST_WEIGHTS", 20)
    with server.client() as client:
        asked = {"model": "writer", "text": TEXT}
        answers = [client.post("/v1/inspect", json={**asked, **more}) for more in ({}, {"layer": 0}, {"view": "norms"})]
    assert [one.status_code for one in answers] == [400, 400, 200]
    assert [one.json()["error"]["param"] for one in answers[:2]] == ["layer", "head"]
    assert "at most 20 are sent. Choose one." in answers[0].json()["error"]["message"]


def test_what_is_written_meanwhile_is_as_it_would_be_alone(server: Server) -> None:
    asked = {"model": "writer", "prompt": "the quick", "max_tokens": 300, "temperature": 0, "logit_bias": {"0": -100}}
    with server.client() as client:
        alone = client.post("/v1/completions", json=asked).json()["choices"][0]["text"]
        beside = list[str]()
        writing = threading.Thread(
            target=lambda: beside.extend(
                client.post("/v1/completions", json=asked).json()["choices"][0]["text"] for _ in range(2)
            )
        )
        writing.start()
        looks = 0
        while writing.is_alive():
            assert client.post("/v1/inspect", json={"model": "writer", "text": TEXT}).status_code == 200
            looks += 1
        writing.join()
    assert beside == [alone] * 2
    assert looks


def test_the_text_has_to_pass_the_guard() -> None:
    guard = WordGuard("fox")
    with running(only(small_model(), small_tokenizer(), guard=guard)) as server, server.client() as client:
        refused = client.post("/v1/inspect", json={"text": TEXT, "view": "norms"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "content_filter")
        assert client.post("/v1/inspect", json={"text": "the quick", "view": "norms"}).status_code == 200


def test_looks_wait_in_the_line_of_explanations(server: Server) -> None:
    turns = server.models.named("writer")._explanations
    turns.taken = MOST_CALLS
    try:
        with server.client() as client:
            refused = client.post("/v1/inspect", json={"model": "writer", "text": TEXT})
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
    finally:
        turns.taken = 0


def test_a_look_that_takes_too_long_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, view = threading.Event(), endpoint._view

    def watched(*arguments: Any) -> Any:
        try:
            while True:  # each look reads the text again, which ends it once nobody waits
                view(*arguments)
        finally:
            ended.set()

    monkeypatch.setattr(endpoint, "_view", watched)
    with running(only(small_model(), small_tokenizer()), timeout=0.2) as server, server.client() as client:
        assert client.post("/v1/inspect", json={"text": TEXT}).status_code == 504
        wait_until(ended.is_set)
