"""What requests hold texts to: formats, patterns, phrases, and calls of tools by their descriptions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import openai
import pytest
import torch
from tests.serving import Server, only, running, small_model, small_tokenizer

from lucidlm.control.config import ConstraintConfig
from lucidlm.control.constraint import ConstraintCompiler
from lucidlm.serve.endpoints.chat_fields import Function
from lucidlm.serve.endpoints.tool_calls import ToolCallReader, call_grammar
from lucidlm.tokenize.tokenizer import Tokenizer

TEMPLATE = (
    "{% for tool in tools or [] %}{{ tool | tojson }}\\n{% endfor %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\\n{{ message['content'] }}<|im_end|>\\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\\n{% endif %}"
)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"mood": {"enum": ["glad", "sad"]}, "why": {"$ref": "#/$defs/text"}},
    "required": ["mood", "why"],
    "additionalProperties": False,
    "$defs": {"text": {"type": "string"}},
}
SAID: Any = [{"role": "user", "content": "hi"}]
WEATHER: Any = {"name": "weather", "description": "Of a place.", "parameters": SCHEMA}
CLOCK: Any = {"name": "clock"}
CALL = '<tool_call>{"name":"clock","arguments":{}}</tool_call>'


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    torch.manual_seed(0)
    tokenizer = small_tokenizer()
    tokenizer = Tokenizer(tokenizer.core, {**tokenizer.config, "chat_template": TEMPLATE})
    with running(only(small_model(), tokenizer)) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("stream", [False, True])
def test_json_by_a_schema(client: openai.OpenAI, stream: bool) -> None:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "mood", "schema": SCHEMA, "strict": True}}
    for seed in range(5):
        asked: Any = {"model": "tiny", "messages": SAID, "response_format": wanted, "max_tokens": 60, "seed": seed}
        if stream:
            parts = [one.choices[0] for one in client.chat.completions.create(**asked, stream=True)]
            text, reason = "".join(part.delta.content or "" for part in parts), parts[-1].finish_reason
        else:
            choice = client.chat.completions.create(**asked).choices[0]
            text, reason = choice.message.content, choice.finish_reason
        jsonschema.validate(json.loads(text), SCHEMA)
        assert reason == "stop"


def test_any_json_object_and_the_newer_protocol(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(
        model="tiny", messages=SAID, response_format={"type": "json_object"}, max_tokens=50, seed=1
    )
    assert isinstance(json.loads(chat.choices[0].message.content or ""), dict)
    text: Any = {"format": {"type": "json_schema", "name": "mood", "schema": SCHEMA}}
    answer = client.responses.create(model="tiny", input="hi", text=text, max_output_tokens=60)
    jsonschema.validate(json.loads(answer.output_text), SCHEMA)
    assert answer.status == "completed"


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"guided_choice": ["yes", "no"]}, "yes|no"),
        ({"guided_regex": "[0-9]{3}-[0-9]{4}"}, "[0-9]{3}-[0-9]{4}"),
        ({"guided_json": {"enum": [1, 2]}}, "[12]"),
        ({"guided_json": json.dumps({"enum": [1, 2]})}, "[12]"),
        ({"guided_grammar": 'start: "a" start "b" | "c"'}, "a*cb*"),
        (
            {"required_phrases": ["brown fox"], "forbidden_phrases": ["the"]},
            "(?s).*[Bb][Rr][Oo][Ww][Nn] [Ff][Oo][Xx].*",
        ),
        ({"guided_regex": "[a-z ]+", "required_phrases": ["fox"]}, "[a-z ]*fox[a-z ]*"),
    ],
)
def test_what_completions_are_held_to(client: openai.OpenAI, fields: dict[str, Any], pattern: str) -> None:
    # Seeded: of texts drawn at random one in some 75 is cut at its length before its phrase, where no end was found in time.
    answer = client.completions.create(model="tiny", prompt="the", n=4, max_tokens=30, seed=0, extra_body=fields)
    assert all(re.fullmatch(pattern, choice.text) for choice in answer.choices), answer.choices


@pytest.mark.parametrize("parallel", [True, False])
def test_a_tool_that_has_to_be_called(client: openai.OpenAI, parallel: bool) -> None:
    tools: Any = [{"type": "function", "function": one} for one in (WEATHER, CLOCK)]
    asked: Any = {"model": "tiny", "messages": SAID, "tools": tools, "parallel_tool_calls": parallel}
    for seed in range(4):
        answer = client.chat.completions.create(**asked, tool_choice="required", max_tokens=120, seed=seed).choices[0]
        called = answer.message.tool_calls or []
        assert answer.finish_reason == "tool_calls"
        assert answer.message.content is None
        assert len(called) >= 1 if parallel else len(called) == 1
        for call in called:
            assert call.type == "function"
            arguments = json.loads(call.function.arguments)
            jsonschema.validate(arguments, {"weather": SCHEMA, "clock": {"type": "object"}}[call.function.name])
    named: Any = {"type": "function", "function": {"name": "clock"}}
    answer = client.chat.completions.create(**asked, tool_choice=named, max_tokens=60).choices[0]
    assert [call.function.name for call in answer.message.tool_calls or [] if call.type == "function"] == ["clock"]


@pytest.mark.parametrize(
    ("text", "single", "obeys"),
    [
        ("Just talking.", False, True),
        ('Wait.<tool_call>\n{"name": "weather", "arguments": {"mood": "sad", "why": "rain"}}\n</tool_call>', False, True),
        (f"{CALL} {CALL}", False, True),
        (f"{CALL} {CALL}", True, False),
        (f"{CALL} done", True, True),
        ('<tool_call>{"name": "weather", "arguments": {"mood": "bored", "why": ""}}</tool_call>', False, False),
        ('<tool_call>{"name": "moon", "arguments": {}}</tool_call>', False, False),
        ("<tool_call>now", False, False),
    ],
)  # fmt: skip
def test_what_is_called_freely_is_called_rightly(text: str, single: bool, obeys: bool) -> None:
    tools = [Function(**WEATHER, strict=True), Function(**CLOCK)]
    tokenizer = small_tokenizer()
    held = ConstraintConfig(grammar=call_grammar(tools, forced=False, single=single))
    constraint = ConstraintCompiler(tokenizer, 300).compile(held, frozenset({tokenizer.eos_id}))
    assert constraint.accepts(tokenizer.encode(text)) is obeys
    if obeys:
        _, calls = ToolCallReader().push(text, last=True)
        assert len(calls) == text.count("<tool_call>")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"guided_regex": "("}, "regex: unclosed group"),
        ({"guided_json": {"not": {}}}, 'the keyword "not"'),
        ({"guided_grammar": "begin: /a/"}, "grammar: no start rule"),
        ({"guided_choice": []}, None),
        ({"guided_choice": [" "]}, "choices"),
        ({"guided_regex": "a" * 1_000_000}, "regex: has 1,000,000 characters"),
        ({"guided_choice": ["yes"], "guided_regex": "no"}, "choices and regex"),
        ({"guided_choice": ["yes"], "forbidden_phrases": ["yes"]}, "choices and forbidden"),
        ({"response_format": {"type": "json_object"}, "guided_json": {"type": "object"}}, "give one of them"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "thing"}}}}, "Invalid type"),
        ({"guided_words": 5}, "guided_words"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "moon"}}}, "moon"),
    ],
)
def test_what_is_wrong_is_named_and_the_server_goes_on(server: Server, body: dict[str, Any], named: str | None) -> None:
    with server.client() as client:
        answer = client.post("/v1/chat/completions", json={"messages": SAID, "max_tokens": 20, **body})
        if named is None:
            assert answer.status_code == 200
        else:
            assert answer.status_code == 400, answer.text
            assert named in answer.json()["error"]["message"]
        assert client.get("/health").status_code == 200
