"""Completions, chat and responses, asked by OpenAI's own client: texts as they are written without a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import torch
from tests.serving import Server, only, running, small_model, small_tokenizer
from tests.speaking_model import saying

from lucidlm.inference.config import SamplingConfig
from lucidlm.inference.decode import generate
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer

PROMPT = "the quick"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    torch.manual_seed(0)
    return small_model()


@pytest.fixture(scope="module")
def server(model: LanguageModel, tokenizer: Tokenizer) -> Iterator[Server]:
    with running(only(model, tokenizer)) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with asking(server) as client:
        yield client


def asking(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def expected(model: LanguageModel, tokenizer: Tokenizer, prompt: Any = PROMPT, **settings: Any) -> str:
    config = SamplingConfig(**{"length": 20, "temperature": 0, "min_p": 0.0, **settings})
    return generate(model, tokenizer, [prompt], config)[0].text


def test_a_completion_is_the_text_that_is_written_without_a_server(
    client: openai.OpenAI, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    answer = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=20, temperature=0)
    assert answer.choices[0].text == expected(model, tokenizer)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(tokenizer.encode_prompt(PROMPT))
    assert answer.usage.completion_tokens == 20


def test_a_stream_is_the_same_text_in_pieces(client: openai.OpenAI, model: LanguageModel, tokenizer: Tokenizer) -> None:
    chunks = list(
        client.completions.create(
            model="tiny",
            prompt=PROMPT,
            max_tokens=20,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    *pieces, counts = chunks
    assert "".join(chunk.choices[0].text for chunk in pieces) == expected(model, tokenizer)
    assert [chunk.choices[0].finish_reason for chunk in pieces][-1] == "length"
    assert counts.choices == []
    assert counts.usage is not None
    assert counts.usage.completion_tokens == 20


def test_sampled_texts_are_told_by_their_seed(
    client: openai.OpenAI, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    settings: dict[str, Any] = {"model": "tiny", "prompt": PROMPT, "max_tokens": 20, "temperature": 1.5, "top_p": 0.9}
    answer = client.completions.create(**settings, seed=7, n=3)
    assert len({choice.text for choice in answer.choices}) == 3
    first = expected(model, tokenizer, temperature=1.5, top_p=0.9, min_p=SamplingConfig().min_p, seed=7)
    assert answer.choices[0].text == first
    again = client.completions.create(**settings, seed=7, n=3)
    assert [choice.text for choice in again.choices] == [choice.text for choice in answer.choices]
    unseeded = {client.completions.create(**settings).choices[0].text for _ in range(3)}
    assert len(unseeded) > 1


def test_beam_search(client: openai.OpenAI, model: LanguageModel, tokenizer: Tokenizer) -> None:
    config = SamplingConfig(num_beams=4, length=20, length_penalty=1)
    prompts = [PROMPT, "over the lazy"]
    answer = client.completions.create(
        model="tiny", prompt=prompts, max_tokens=20, logprobs=0, extra_body={"num_beams": 4, "length_penalty": 1}
    )
    assert [one.text for one in answer.choices] == [one.text for one in generate(model, tokenizer, prompts, config)]
    found = answer.choices[0].logprobs
    assert found is not None
    assert "".join(found.tokens or []) == answer.choices[0].text
    asked: Any = [{"role": "user", "content": "hi"}]
    chat = client.chat.completions.create(
        model="tiny", messages=asked, max_tokens=5, extra_body={"num_beams": 4, "min_tokens": 5}
    )
    assert chat.usage is not None
    assert chat.usage.completion_tokens == 5


def test_several_prompts_as_texts_and_as_tokens(
    client: openai.OpenAI, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    prompts = [PROMPT, "over the lazy"]
    ids = [tokenizer.encode_prompt(prompt) for prompt in prompts]
    for given in (prompts, ids):
        answer = client.completions.create(model="tiny", prompt=given, max_tokens=20, temperature=0)
        assert [one.text for one in answer.choices] == [expected(model, tokenizer, prompt) for prompt in prompts]
    one = client.completions.create(model="tiny", prompt=ids[1], max_tokens=20, temperature=0)
    assert one.choices[0].text == expected(model, tokenizer, prompts[1])


def test_log_probabilities_are_the_models_own(
    client: openai.OpenAI, model: LanguageModel, tokenizer: Tokenizer
) -> None:
    answer = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=5, temperature=0, logprobs=3)
    found = answer.choices[0].logprobs
    assert found is not None
    ids = tokenizer.encode_prompt(PROMPT)
    written = generate(model, tokenizer, [PROMPT], SamplingConfig(length=5, temperature=0))[0].tokens
    with torch.no_grad():
        states = model.model(torch.tensor([ids + written]))
        logprobs = model.logits(states[0, len(ids) - 1 : -1]).log_softmax(-1)
    assert found.token_logprobs == pytest.approx(
        [float(row[token]) for row, token in zip(logprobs, written, strict=True)], abs=1e-4
    )
    assert all(len(top) == 3 for top in found.top_logprobs or [])
    assert "".join(found.tokens or []) == answer.choices[0].text


def test_a_bias_makes_a_token_certain(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    (token,) = tokenizer.encode("q")
    answer = client.completions.create(
        model="tiny", prompt=PROMPT, max_tokens=4, temperature=1, logit_bias={str(token): 100}
    )
    assert answer.choices[0].text == "qqqq"


def test_a_stop_string_ends_a_text_and_is_no_part_of_it(tokenizer: Tokenizer) -> None:
    words = [tokenizer.encode(letter)[0] for letter in "qzx"]
    with running(only(saying(*words), tokenizer)) as server, server.client() as client:
        body = {"prompt": "", "max_tokens": 9, "temperature": 0, "stop": ["xq"]}
        answer = client.post("/v1/completions", json=body).json()["choices"][0]
        assert (answer["text"], answer["finish_reason"]) == ("qz", "stop")
        lines = client.post("/v1/completions", json={**body, "stream": True}).text.splitlines()
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
        assert "".join(one["choices"][0]["text"] for one in events) == "qz"


def test_a_reply_ends_with_the_templates_turn(tokenizer: Tokenizer) -> None:
    words = [tokenizer.encode(letter)[0] for letter in "qz"]
    end = tokenizer.core.token_to_id("<|im_end|>")
    with running(only(saying(*words, end), tokenizer)) as server, asking(server) as client:
        asked: Any = [{"role": "user", "content": "hi"}]
        answer = client.chat.completions.create(model="tiny", messages=asked, temperature=0)
        assert answer.choices[0].message.content == "qz"
        assert answer.choices[0].finish_reason == "stop"
        chunks = list(client.chat.completions.create(model="tiny", messages=asked, temperature=0, stream=True))
        assert chunks[0].choices[0].delta.role == "assistant"
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "qz"
        parts: Any = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
        likely = client.chat.completions.create(
            model="tiny", messages=parts, temperature=0, logprobs=True, top_logprobs=2
        )
        found = likely.choices[0].logprobs
        assert found is not None
        assert [one.token for one in found.content or []] == ["q", "z", "<|im_end|>"]
        assert likely.usage == answer.usage


def test_responses(tokenizer: Tokenizer) -> None:
    words = [tokenizer.encode(letter)[0] for letter in "qz"]
    end = tokenizer.core.token_to_id("<|im_end|>")
    with running(only(saying(*words, end), tokenizer)) as server, asking(server) as client:
        answer = client.responses.create(model="tiny", input="hi", temperature=0)
        assert (answer.output_text, answer.status) == ("qz", "completed")
        cut = client.responses.create(model="tiny", input="hi", temperature=0, max_output_tokens=1)
        assert (cut.output_text, cut.status) == ("q", "incomplete")
        events = list(client.responses.create(model="tiny", input="hi", temperature=0, stream=True))
        assert events[0].type == "response.created"
        assert "".join(one.delta for one in events if one.type == "response.output_text.delta") == "qz"
        assert events[-1].type == "response.completed"
        assert events[-1].response.output_text == "qz"
        assert [one.sequence_number for one in events] == list(range(len(events)))


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("completions", {"prompt": PROMPT, "best_of": 2}, "best_of"),
    ("completions", {"prompt": PROMPT, "n": 1000}, "n"),
    ("completions", {"prompt": []}, "prompt"),
    ("completions", {"prompt": [0, 100_000]}, "prompt"),
    ("completions", {"prompt": PROMPT, "temperature": -1}, "temperature"),
    ("completions", {"prompt": PROMPT, "temperature": "hot"}, "temperature"),
    ("completions", {"prompt": PROMPT, "max_tokens": 0}, "max_tokens"),
    ("completions", {"prompt": PROMPT, "stop": ["x"] * 1000}, "stop"),
    ("completions", {"prompt": PROMPT, "stop": "x" * 1_000_000}, "stop"),
    ("completions", {"prompt": PROMPT, "stop": ""}, "stop"),
    ("completions", {"prompt": PROMPT, "logit_bias": {"a": 1}}, "logit_bias"),
    ("completions", {"prompt": PROMPT, "logit_bias": {"99999": 1}}, "logit_bias"),
    ("completions", {"prompt": PROMPT, "presence_penalty": 3.0}, "presence_penalty"),
    ("completions", {"prompt": PROMPT, "num_beams": 100}, "num_beams"),
    ("completions", {"prompt": PROMPT, "num_beams": 2, "stream": True}, "stream"),
    ("completions", {"prompt": PROMPT, "num_beams": 2, "n": 2}, "n: beam search"),
    ("completions", {"prompt": PROMPT, "num_beams": 2, "temperature": 0.8}, "temperature"),
    ("completions", {"prompt": PROMPT, "num_beams": 2, "stop": "x", "top_k": 3}, "top_k, stop"),
    ("completions", {"prompt": PROMPT, "length_penalty": 2.0}, "length_penalty"),
    ("completions", {"prompt": PROMPT, "num_beams": 2, "guided_choice": ["a", "b"]}, "num_beams"),
    ("completions", {"prompt": PROMPT, "stream_options": {"include_usage": True}}, "stream_options"),
    ("completions", {"prompt": PROMPT, "model": "another"}, "another"),
    ("completions", {"prompt": "\ud800"}, "surrogate"),
    ("completions", {"prompt": "the " * 3000}, "2,048"),
    ("chat/completions", {"messages": []}, "messages"),
    ("chat/completions", {"messages": [{"role": "user"}], "response_format": {"type": "xml"}}, "response_format"),
    ("chat/completions", {"messages": [{"role": "robot", "content": "hi"}]}, "role"),
    ("chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "content"),
    ("chat/completions", {"messages": [{"role": "assistant", "content": "hi"}]}, "assistant"),
    ("chat/completions", {"messages": [{"role": "user", "content": "hi"}], "tool_choice": "required"}, "tool_choice"),
    ("responses", {"input": "hi", "previous_response_id": "x"}, "previous_response_id"),
    ("responses", {"input": "hi", "store": True}, "store"),
]


@pytest.mark.parametrize(("path", "body", "named"), BAD)
def test_what_is_wrong_is_named(server: Server, path: str, body: dict[str, Any], named: str) -> None:
    with server.client() as client:
        answer = client.post(f"/v1/{path}", content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 404), answer.text
        error = answer.json()["error"]
        assert named in error["message"]
        assert error["type"] in ("invalid_request_error", "not_found_error")
        assert len(answer.text) < 2000
        assert client.post("/v1/completions", json={"prompt": PROMPT, "max_tokens": 2}).status_code == 200


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"prompt": "\xff"}', b'{"prompt": "a", "temperature": NaN}', b"\x00" * 100]
)
def test_bodies_that_are_no_json(server: Server, content: bytes) -> None:
    with server.client() as client:
        answer = client.post("/v1/completions", content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400
        assert answer.json()["error"]["message"]


def test_a_template_that_fails_is_the_requests_mistake() -> None:
    tokenizer = small_tokenizer()
    broken = Tokenizer(
        tokenizer.core, {**tokenizer.config, "chat_template": "{{ raise_exception('no ' ~ messages[0].content) }}"}
    )
    with running(only(small_model(), broken)) as server, server.client() as client:
        answer = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "hi"}]})
        assert answer.status_code == 400
        assert "template" in answer.json()["error"]["message"] or "chat" in answer.json()["error"]["message"]
