"""Guarded models over HTTP: prompts that are refused, texts that are cut, and others that go on as without a guard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest
import torch
from tests.guards import WordGuard
from tests.serving import Server, in_memory, only, running, small_model, small_tokenizer, wait_until
from tests.speaking_model import saying

from lucidlm.inference.config import SamplingConfig
from lucidlm.inference.decode import generate
from lucidlm.inference.guard import STRETCH
from lucidlm.model.heads import LanguageModel
from lucidlm.serve.models import Models, ServedModel
from lucidlm.serve.task_kinds import TEXT, TaskKind
from lucidlm.tokenize.tokenizer import Tokenizer

TOKENIZER = small_tokenizer()
END = TOKENIZER.core.token_to_id("<|im_end|>") or 0
ASKED: Any = [{"role": "user", "content": "hi"}]


def letters(text: str) -> list[int]:
    return [token for letter in text for token in TOKENIZER.encode(letter)]


@contextmanager
def guarded(
    model: LanguageModel, guard: WordGuard, tokenizer: Tokenizer = TOKENIZER
) -> Iterator[tuple[Server, openai.OpenAI]]:
    with (
        running(only(model, tokenizer, guard=guard)) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield server, client


@pytest.fixture(scope="module")
def talker() -> LanguageModel:
    """A model that says "Go. bad" and ends its turn."""
    return saying(*letters("Go. bad"), END)


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]


def test_a_reply_is_cut_where_it_last_passed(talker: LanguageModel) -> None:
    asked: Any = {"model": "tiny", "messages": ASKED, "temperature": 0, "logprobs": True}
    with guarded(talker, WordGuard("bad")) as (_, client):
        choice = client.chat.completions.create(**asked).choices[0]
        assert (choice.message.content, choice.finish_reason) == ("Go.", "content_filter")
        assert choice.logprobs is not None
        assert [one.token for one in choice.logprobs.content or []] == list("Go.")
        chunks = [one.choices[0] for one in client.chat.completions.create(**asked, stream=True)]
        assert [chunk.delta.content for chunk in chunks if chunk.delta.content] == ["Go."]
        assert chunks[-1].finish_reason == "content_filter"
        told = [one.token for chunk in chunks if chunk.logprobs for one in chunk.logprobs.content or []]
        assert told == list("Go.")
        found = client.completions.create(model="tiny", prompt="", max_tokens=20, temperature=0, logprobs=2)
        assert (found.choices[0].text, found.choices[0].finish_reason) == ("Go.", "content_filter")
        assert found.choices[0].logprobs is not None
        assert found.choices[0].logprobs.tokens == list("Go.")


def test_responses_say_why_they_are_incomplete(talker: LanguageModel) -> None:
    with guarded(talker, WordGuard("bad")) as (_, client):
        answer = client.responses.create(model="tiny", input="hi", temperature=0)
        assert (answer.output_text, answer.status) == ("Go.", "incomplete")
        assert answer.incomplete_details is not None
        assert answer.incomplete_details.reason == "content_filter"
        heard = list(client.responses.create(model="tiny", input="hi", temperature=0, stream=True))
        assert "".join(one.delta for one in heard if one.type == "response.output_text.delta") == "Go."
        assert heard[-1].type == "response.incomplete"
        assert heard[-1].response.output_text == "Go."


def test_what_passes_is_what_is_written_without_a_guard(talker: LanguageModel) -> None:
    guard = WordGuard("good")
    with guarded(talker, guard) as (_, client):
        choice = client.chat.completions.create(model="tiny", messages=ASKED, temperature=0).choices[0]
        assert (choice.message.content, choice.finish_reason) == ("Go. bad", "stop")
    assert guard.passed == ["hi", "Go.", "Go. bad"]


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("chat/completions", {"messages": [{"role": "user", "content": "a bad word"}]}, "messages"),
    ("chat/completions", {"messages": [{"role": "system", "content": "bad"}, *ASKED]}, "messages"),
    (
        "chat/completions",
        {"messages": [*ASKED, {"role": "assistant", "content": "bad"}, *ASKED], "stream": True},
        "messages",
    ),
    ("chat/completions", {"messages": [{"role": "user", "content": [{"type": "text", "text": "bad"}]}]}, "messages"),
    ("completions", {"prompt": "a bad word"}, "prompt"),
    ("completions", {"prompt": ["good", "bad"], "stream": True}, "prompt"),
    ("completions", {"prompt": letters("bad")}, "prompt"),
    ("responses", {"input": "bad"}, "input"),
    ("responses", {"input": "hi", "instructions": "bad", "stream": True}, "input"),
]


@pytest.mark.parametrize(("path", "body", "field"), REFUSED)
def test_a_prompt_that_does_not_pass_is_refused(
    talker: LanguageModel, path: str, body: dict[str, Any], field: str
) -> None:
    with guarded(talker, WordGuard("bad")) as (server, _), server.client() as client:
        answer = client.post(f"/v1/{path}", json=body)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", field, "content_filter")
        assert "it says bad" not in error["message"]  # why is for whoever runs the server


@pytest.mark.parametrize("stream", [True, False])
def test_each_text_goes_its_own_way(stream: bool) -> None:
    """Texts of one request and of several at a time: some are cut, the others are as they would be without a guard."""
    torch.manual_seed(0)
    model, prompt, guard = small_model(), "the fox", WordGuard("q")
    sampling: dict[str, Any] = {"temperature": 1.0, "min_p": 0.0}

    def asked(seed: int) -> list[tuple[str, str | None]]:
        body = {"prompt": prompt, "max_tokens": 40, "n": 2, "seed": seed, "stream": stream, **sampling}
        with server.client() as client:
            answer = client.post("/v1/completions", json=body)
        choices = [choice for one in (events(answer) if stream else [answer.json()]) for choice in one["choices"]]
        own = [[one for one in choices if one["index"] == index] for index in range(2)]
        return [("".join(one["text"] for one in parts), parts[-1]["finish_reason"]) for parts in own]

    with guarded(model, guard) as (server, _), ThreadPoolExecutor(6) as pool:
        found = list(pool.map(asked, range(6)))
    cut = 0
    for seed, texts in enumerate(found):
        config = SamplingConfig(length=40, seed=seed, **sampling)
        for (text, reason), whole in zip(texts, generate(model, TOKENIZER, [prompt] * 2, config), strict=True):
            if "q" in whole.text:
                cut += 1
                assert reason == "content_filter"
                assert whole.text.startswith(text)
                assert "q" not in text
            else:
                assert (text, reason) == (whole.text, "length" if whole.reason == "length" else "stop")
    assert 0 < cut < 12
    assert max(guard.calls) > 1  # those of one step are judged together


def test_a_guard_that_fails_lets_nothing_through_and_ends_no_other_text(talker: LanguageModel) -> None:
    asked: Any = {"messages": ASKED, "temperature": 0}
    guard = WordGuard("good", failing="bad")
    with guarded(talker, guard) as (server, _), server.client() as client:
        whole = client.post("/v1/chat/completions", json=asked)
        assert (whole.status_code, whole.json()["error"]["code"]) == (500, "internal_error")
        assert "Go" not in whole.text
        *parts, error = events(client.post("/v1/chat/completions", json={**asked, "stream": True}))
        assert "".join(one["choices"][0]["delta"].get("content", "") for one in parts) == "Go."
        assert error["error"]["code"] == "internal_error"
        prompt = client.post("/v1/completions", json={"prompt": "bad"})
        assert (prompt.status_code, prompt.json()["error"]["code"]) == (500, "internal_error")
        guard.failing = "nothing"
        assert client.post("/v1/chat/completions", json=asked).json()["choices"][0]["finish_reason"] == "stop"
        assert client.get("/health").status_code == 200


def test_a_client_that_goes_away_frees_a_place_whose_text_is_held_back() -> None:
    with guarded(saying(*letters("ab"), context=100_000), WordGuard("\0")) as (server, _):
        body = {"prompt": "", "max_tokens": 90_000, "temperature": 0, "stream": True}
        with server.client() as client, client.stream("POST", "/v1/completions", json=body) as answer:
            assert next(answer.iter_lines()).startswith("data: {")
        writer = next(iter(server.models)).writer
        assert writer is not None
        wait_until(lambda: writer.engine.running == 0 and writer.engine.used_blocks == 0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_is_looked_for_first(talker: LanguageModel, stream: bool) -> None:
    with guarded(talker, WordGuard("bad")) as (server, _), server.client() as client:
        body = {"prompt": "", "max_tokens": 20, "temperature": 0, "stop": [" b"], "stream": stream}
        answer = client.post("/v1/completions", json=body)
        choices = [one["choices"][0] for one in (events(answer) if stream else [answer.json()])]
        assert ("".join(one["text"] for one in choices), choices[-1]["finish_reason"]) == ("Go.", "stop")


def test_a_form_that_is_cut_is_said_to_be() -> None:
    schema: Any = {"type": "object", "properties": {"mood": {"const": "glad"}}, "required": ["mood"]}
    schema["additionalProperties"] = False
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "mood", "schema": schema}}
    tool: Any = {"type": "function", "function": {"name": "clock"}}
    template = "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}{% for one in messages %}{{ one.content }}"
    talks = Tokenizer(TOKENIZER.core, {**TOKENIZER.config, "chat_template": template + "{% endfor %}"})
    asked: Any = {"model": "tiny", "messages": ASKED, "max_tokens": 120, "seed": 0}
    with guarded(small_model(), WordGuard("glad"), talks) as (_, client):
        choice = client.chat.completions.create(**asked, response_format=wanted).choices[0]
        assert (choice.finish_reason, "glad" in (choice.message.content or "")) == ("content_filter", False)
    with guarded(small_model(), WordGuard("clock"), talks) as (_, client):
        choice = client.chat.completions.create(**asked, tools=[tool], tool_choice="required").choices[0]
        assert (choice.message.tool_calls, choice.finish_reason) == (None, "content_filter")
    with guarded(small_model(), WordGuard("nothing"), talks) as (_, client):
        choice = client.chat.completions.create(**asked, response_format=wanted).choices[0]
        assert json.loads(choice.message.content or "") == {"mood": "glad"}
        assert choice.finish_reason == "stop"


def test_tasks_that_write_are_guarded_too() -> None:
    loaded = in_memory(small_model(), TOKENIZER)
    kind = TaskKind(TEXT, lambda _, asked: [{"text": text.upper()} for text in asked["text"]], writes=True)
    served = ServedModel("t", loaded, TOKENIZER, 0, task=("translation", kind), guard=WordGuard("BAD"))
    with running(Models({"t": served})) as server, server.client() as client:
        answers = [
            client.post("/v1/tasks/translation", json={"text": text}) for text in ("good", "bad", ["good", "BAD"])
        ]
    assert [answer.status_code for answer in answers] == [200, 400, 400]
    assert [answer.json()["error"]["param"] for answer in answers[1:]] == [None, "text"]
    assert answers[1].json()["error"]["code"] == "content_filter"


def test_a_stretch_is_told_after_some_tokens_without_an_end() -> None:
    guard = WordGuard("nothing")
    with guarded(saying(*letters("abcdefgh ")), guard) as (server, _), server.client() as client:
        body = {"prompt": "", "max_tokens": 3 * STRETCH, "temperature": 0, "stream": True}
        pieces = [one["choices"][0]["text"] for one in events(client.post("/v1/completions", json=body))]
    assert [len(piece) for piece in pieces] == [27, 36, 33]


def test_what_is_explained_has_to_pass_too(talker: LanguageModel) -> None:
    with guarded(talker, WordGuard("bad")) as (server, _), server.client() as client:
        for asked, param in (({"text": "so bad"}, "text"), ({"text": "hi", "length": 9}, None)):
            error = client.post("/v1/explain", json=asked).json()["error"]
            assert (error["code"], error["param"]) == ("content_filter", param)
        answer = client.post("/v1/explain", json={"text": "hi", "length": 2})
        assert answer.json()["continuation"] == "Go"
