"""Tasks, vectors, ranking and tokens over HTTP: what the Python classes answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from tests.serving import TORCH, Server, running

from lucidlm.core.errors import InputError
from lucidlm.predict.classifier import TextClassifier
from lucidlm.predict.embedder import TextEmbedder
from lucidlm.serve.config import ServeConfig
from lucidlm.serve.models import open_models
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import finetune

TEXTS = ["a wonderful film", "the plot is dreadful"]


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, reviews_csv: Path) -> Path:
    out = tmp_path_factory.mktemp("serve") / "judge"
    finetune(
        FinetuneConfig(task="sentiment", model=str(tiny_model), data=str(reviews_csv), epochs=1, device="cpu"), out
    )
    return out


@pytest.fixture(scope="module")
def server(judge: Path, tiny_model: Path) -> Iterator[Server]:
    sources = [str(judge), f"base={tiny_model}"]
    with running(open_models(sources, ServeConfig(), TORCH, "cpu")) as server:
        yield server


def test_models_say_what_they_can(server: Server) -> None:
    with server.client() as client:
        found = {one["id"]: one for one in client.get("/v1/models").json()["data"]}
    assert found["judge"]["abilities"] == ["tasks/sentiment", "explain", "inspect"]
    assert found["judge"]["task"]["fields"].keys() == {"text"}
    assert {"completions", "embeddings", "rerank"} <= set(found["base"]["abilities"])


def test_labels_with_probabilities(server: Server, judge: Path) -> None:
    expected = TextClassifier(judge, device="cpu")(TEXTS)
    with server.client() as client:
        answer = client.post("/v1/tasks/sentiment", json={"text": TEXTS}).json()
        single = client.post("/v1/tasks/sentiment", json={"text": TEXTS[0], "model": "judge"}).json()
    assert [one["label"] for one in answer["results"]] == [one.label for one in expected]
    for found, right in zip(answer["results"], expected, strict=True):
        assert found["probabilities"] == pytest.approx(dict(zip(right.labels, right.probabilities, strict=True)))
    assert single["results"][0]["probabilities"] == pytest.approx(answer["results"][0]["probabilities"], abs=1e-5)


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("tasks/sentiment", {"text": ""}, "text"),
        ("tasks/sentiment", {"text": []}, "text"),
        ("tasks/sentiment", {"texts": "good"}, "texts"),
        ("tasks/sentiment", {"text": "good", "model": "base"}, "base cannot"),
        ("tasks/sentiment", {"text": ["good"] * 257}, "text"),
        ("embeddings", {"input": "good", "model": "judge"}, "judge cannot"),
        ("embeddings", {"input": [1, 2], "model": "base"}, "input"),
        ("embeddings", {"input": "good", "model": "base", "dimensions": 7}, "dimensions"),
        ("embeddings", {"input": ["good", " "], "model": "base"}, "text 2 is empty"),
        ("rerank", {"query": "good", "documents": [], "model": "base"}, "documents"),
        ("completions", {"prompt": "a", "model": "judge"}, "judge cannot"),
    ],
)
def test_what_is_wrong_is_named(server: Server, path: str, body: dict[str, Any], named: str) -> None:
    with server.client() as client:
        answer = client.post(f"/v1/{path}", json=body)
    assert answer.status_code == 400
    assert named in answer.json()["error"]["message"]


def test_embeddings_by_openais_client(server: Server, tiny_model: Path) -> None:
    expected = TextEmbedder(tiny_model, device="cpu")(TEXTS)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        as_bytes = client.embeddings.create(model="base", input=TEXTS)  # base64 is what it asks for by itself
        as_numbers = client.embeddings.create(model="base", input=TEXTS, encoding_format="float")
    for answer in (as_bytes, as_numbers):
        np.testing.assert_allclose([one.embedding for one in answer.data], expected, atol=1e-6)


def test_ranking_is_by_likeness(server: Server, tiny_model: Path) -> None:
    documents = [*TEXTS, "a wonderful story"]
    vectors = TextEmbedder(tiny_model, device="cpu")(["a wonderful film", *documents])
    scores = vectors[1:] @ vectors[0]
    with server.client() as client:
        body = {"query": "a wonderful film", "documents": documents, "model": "base", "top_n": 2}
        results = client.post("/v1/rerank", json=body).json()["results"]
    assert [one["index"] for one in results] == np.argsort(-scores, kind="stable")[:2].tolist()
    assert results[0]["relevance_score"] == pytest.approx(1.0, abs=1e-4)
    assert results[0]["document"]["text"] == documents[results[0]["index"]]


def test_tokens_and_back(server: Server) -> None:
    text = "a wonderful film 很好"
    with server.client() as client:
        found = client.post("/tokenize", json={"text": text, "model": "base"}).json()
        assert found["count"] == len(found["tokens"]) == len(found["texts"])
        back = client.post("/detokenize", json={"tokens": found["tokens"], "model": "base"}).json()
        assert back["text"] == text
        beyond = client.post("/detokenize", json={"tokens": [10_000_000], "model": "base"})
        assert beyond.status_code == 400


def test_two_models_of_one_name(judge: Path) -> None:
    with pytest.raises(InputError, match="two models are called judge"):
        open_models([str(judge), str(judge)], ServeConfig(), TORCH, "cpu")
