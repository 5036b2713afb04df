"""Explanations over HTTP: what the Python functions find, beside all else that a server does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.serving import TORCH, Server, in_memory, only, running, small_model, small_tokenizer, wait_until

import lucidlm
from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, SpanExtractor
from lucidlm.serve.config import ServeConfig
from lucidlm.serve.endpoints import explain as endpoint
from lucidlm.serve.models import MOST_CALLS, Models, serve_model
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import finetune

TEXT = "a wonderful film, the plot is dreadful"
QUESTION = {"text": "Who built it?", "context": "It was built by Ada in 1871."}


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, reviews_csv: Path) -> dict[str, LoadedModel]:
    judge = tmp_path_factory.mktemp("explain") / "judge"
    finetune(
        FinetuneConfig(task="sentiment", model=str(tiny_model), data=str(reviews_csv), epochs=1, device="cpu"), judge
    )
    tokenizer = Tokenizer.train_characters([QUESTION["text"] + QUESTION["context"]])
    shape: dict[str, Any] = {"embedding_dim": 32, "num_heads": 2, "ff_dim": 48, "num_layers": 1, "context_length": 128}
    reader = SpanExtractor(ModelConfig(vocab_size=tokenizer.vocab_size, causal=False, **shape)).eval()
    masked = LanguageModel(ModelConfig(vocab_size=300, causal=False, **shape)).eval()
    return {
        "judge": load_model(judge),
        "reader": LoadedModel(reader, tokenizer, {"kind": "span", "provenance": {}}, source="reader"),
        "writer": in_memory(small_model(), small_tokenizer()),
        "masked": in_memory(masked, small_tokenizer()),
    }


@pytest.fixture(scope="module")
def server(opened: dict[str, LoadedModel]) -> Iterator[Server]:
    models = {name: serve_model(name, one, ServeConfig(), TORCH) for name, one in opened.items()}
    with running(Models(models)) as server:
        yield server


def plain(found: Any) -> dict[str, Any]:
    return json.loads(json.dumps(found.to_dict()))


def without_the_head(answer: Any, model: str) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found.pop("object"), found.pop("model")) == ("explanation", model)
    return found


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        ("judge", {"text": TEXT, "by": "word"}),
        ("judge", {"text": TEXT, "method": "shapley", "target": "negative", "rather_than": "positive", "seed": 3}),
        ("reader", {**QUESTION, "by": "word"}),
        ("reader", {**QUESTION, "target": "Ada", "rather_than": "1871", "method": "integrated-gradients", "steps": 20}),
        ("writer", {"text": "the quick brown", "target": " fox"}),
    ],
)
def test_explanations_are_those_of_python(
    server: Server, opened: dict[str, LoadedModel], model: str, asked: dict[str, Any]
) -> None:
    expected = lucidlm.explain(opened[model], **asked, device="cpu")
    with server.client() as client:
        found = without_the_head(client.post("/v1/explain", json={"model": model, **asked}), model)
    expected_ = plain(expected)
    assert [one["text"] for one in found["pieces"]] == [one["text"] for one in expected_["pieces"]]
    values = [one["attribution"] for one in expected_["pieces"]]
    assert [one["attribution"] for one in found["pieces"]] == pytest.approx(values, abs=1e-4)
    assert found.keys() == expected_.keys()
    assert (found["target"], found["rather_than"]) == (expected_["target"], expected_["rather_than"])


def test_each_token_that_is_written(server: Server, opened: dict[str, LoadedModel]) -> None:
    expected = plain(lucidlm.explain_generated(opened["writer"], "the quick", length=4, device="cpu"))
    with server.client() as client:
        asked = {"model": "writer", "text": "the quick", "length": 4}
        found = without_the_head(client.post("/v1/explain", json=asked), "writer")
    assert found["pieces"] == expected["pieces"]
    assert found["attributions"][-1] == pytest.approx(expected["attributions"][-1], abs=1e-4)


def test_what_can_be_explained_is_said(server: Server) -> None:
    with server.client() as client:
        models = {one["id"]: one["abilities"] for one in client.get("/v1/models").json()["data"]}
        described = client.get("/openapi.json").json()
    assert {name for name, abilities in models.items() if "explain" in abilities} == {"judge", "reader", "writer"}
    fields = described["components"]["schemas"]["ExplainRequest"]["properties"]
    assert {"text", "context", "target", "rather_than", "length", "by", "method", "steps", "seed"} <= fields.keys()
    assert "post" in described["paths"]["/v1/explain"]


@pytest.mark.parametrize(
    ("asked", "message", "param"),
    [
        ({"text": " "}, "text: is empty", "text"),
        ({}, "text: Field required", "text"),
        ({"text": TEXT, "target": "splendid"}, "target: there is no label 'splendid'", "target"),
        ({"text": TEXT, "rather_than": "splendid"}, "rather_than: there is no label", "rather_than"),
        ({"text": TEXT, "method": "magic"}, "method: Input should be", "method"),
        ({"text": TEXT, "by": "letter"}, "by: Input should be", "by"),
        ({"text": TEXT, "steps": 0}, "steps", "steps"),
        ({"text": TEXT, "colour": "red"}, "colour: is not supported here", "colour"),
        ({"text": TEXT, "context": "A passage."}, "context: is for models that find answers", "context"),
        ({"text": TEXT, "length": 3}, "length: judge does not continue texts", "length"),
        (
            {"text": TEXT, "method": "rollout", "rather_than": "positive", "target": "negative"},
            "does not reach the n-grams",
            "method",
        ),
        ({"text": "good " * 300}, "text: has .* tokens, the model reads .* at once", "text"),
        ({"text": "good film " * 9_000}, "text: has .* at most 2,048 are explained here", "text"),
        ({"model": "reader", "text": "Who?"}, "context: is missing", "context"),
        ({"model": "reader", **QUESTION, "target": "Bob"}, "target: 'Bob' does not stand in the passage", "target"),
        (
            {"model": "writer", "text": "the", "length": 3, "rather_than": "a"},
            "rather_than: does not go",
            "rather_than",
        ),
        ({"model": "writer", "text": "the", "length": 10_000}, "length", "length"),
        ({"model": "masked", "text": "the"}, "masked cannot do this .explain.", "model"),
    ],
)
def test_what_is_wrong_is_named(server: Server, asked: dict[str, Any], message: str, param: str) -> None:
    with server.client() as client:
        answer = client.post("/v1/explain", json={"model": "judge", **asked})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    with pytest.raises(ValueError, match=message):
        raise ValueError(error["message"])
    assert error["param"] == param


def test_what_is_written_meanwhile_is_as_it_would_be_alone(server: Server) -> None:
    """The hooks of an explanation stay on a model of its own."""
    asked = {"model": "writer", "prompt": "the quick", "max_tokens": 400, "temperature": 0, "logit_bias": {"0": -100}}
    why = {"model": "writer", "text": "the quick brown fox jumps", "method": "integrated-gradients"}
    with server.client() as client:
        alone = client.post("/v1/completions", json=asked).json()["choices"][0]["text"]
        beside = list[str]()
        writing = threading.Thread(
            target=lambda: beside.extend(
                client.post("/v1/completions", json=asked).json()["choices"][0]["text"] for _ in range(3)
            )
        )
        writing.start()
        explained = 0
        while writing.is_alive():
            assert client.post("/v1/explain", json=why).status_code == 200
            explained += 1
        writing.join()
    assert beside == [alone] * 3
    assert explained


def test_explanations_wait_for_each_other_only(server: Server) -> None:
    turns = server.models.named("judge")._explanations
    turns.taken = MOST_CALLS
    try:
        with server.client() as client:
            refused = client.post("/v1/explain", json={"model": "judge", "text": TEXT})
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
            assert client.post("/v1/tasks/sentiment", json={"text": TEXT}).status_code == 200
    finally:
        turns.taken = 0


def test_an_explanation_that_takes_too_long_ends(
    opened: dict[str, LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    found = endpoint._found

    def watched(*arguments: Any) -> Any:
        try:
            return found(*arguments)
        finally:
            ended.set()

    monkeypatch.setattr(endpoint, "_found", watched)
    with running(only(small_model(), small_tokenizer()), timeout=0.2) as server, server.client() as client:
        text = "the quick brown fox jumps over the lazy dog. " * 40
        asked = {"text": text, "method": "integrated-gradients", "steps": 1000}
        answer = client.post("/v1/explain", json=asked)
        assert answer.status_code == 504
        wait_until(ended.is_set)
    assert all(parameter.requires_grad for parameter in next(iter(server.models)).loaded.model.parameters())
