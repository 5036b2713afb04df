"""Conversations in the forms that people have them: what is read, what it becomes, what is refused and how it is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lucidlm.core.errors import InputError
from lucidlm.data.examples.chat_forms import read_chat
from lucidlm.data.examples.records import Row
from lucidlm.tasks import tasks
from lucidlm.tasks.dialogue import Dialogue
from lucidlm.tokenize.conversation import Chat, Message

HELLO = (Message("user", "Hello"), Message("assistant", "Hi."))
ASKED, SAID = {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}
FUNCTION = {"name": "weather", "arguments": {"city": "Paris"}}
CALL = {"id": "c1", "type": "function", "function": FUNCTION}
TOOL = {"name": "weather", "description": "The weather", "parameters": {"type": "object", "properties": {}}}


def read(**fields: Any) -> Chat:
    return read_chat(Row(fields, "chats.jsonl:7"))


def turns(*messages: Any, **fields: Any) -> Chat:
    return read(messages=list(messages), **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [ASKED, SAID]},
        {"conversations": [ASKED, SAID]},
        {"conversation": [ASKED, SAID], "id": 3, "source": "x"},
        {"messages": [{**ASKED, "name": None, "tool_calls": None, "weight": 0}, {**SAID, "tool_calls": [], "weight": 1}]},
        {"messages": [{"role": who, "content": [{"type": "text", "text": c} for c in said]} for who, said in
                      (("user", ("Hel", "lo")), ("assistant", ("Hi.",)))]},
        {"conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi."}]},
        {"messages": [{"from": "user", "value": "Hello"}, {"from": "bot", "value": "Hi.", "weight": None}]},
        {"instruction": "Hello", "input": "", "output": "Hi."},
        {"prompt": "Hello", "completion": "Hi."},
        {"prompt": "Hello", "response": "Hi."},
        {"query": "Hello", "response": "Hi.", "history": []},
        {"question": "Hello", "answer": "Hi."},
        {"instruction": "Hello", "context": "", "response": "Hi.", "category": "x"},
        {"document": "#Person1#: Hello\n#Person2#: Hi.\n#Person1#: Bye."},
        {"dialogue": "Ann: Hello\nBo: Hi."},
        {"messages": [ASKED, SAID, {"role": "user", "content": "Bye."}]},
        {"messages": [ASKED, SAID, ASKED, {**SAID, "weight": 0}]},
        {"messages": [ASKED, SAID], "system": "", "tools": [], "images": [], "prompt": "Hello"},
    ],
)  # fmt: skip
def test_one_conversation_in_many_forms(fields: dict[str, Any]) -> None:
    assert read(**fields) == Chat(HELLO, "chats.jsonl:7")


def test_white_space_is_kept() -> None:
    found = turns({"role": "user", "content": " a\n"}, {"role": "assistant", "content": "    return 1\n"})
    assert [message.content for message in found.messages] == [" a\n", "    return 1\n"]


@pytest.mark.parametrize("name", ["system", "system_prompt"])
@pytest.mark.parametrize("form", [{"messages": [ASKED, SAID]}, {"instruction": "Hello", "output": "Hi."}])
def test_what_the_system_says_may_stand_beside(name: str, form: dict[str, Any]) -> None:
    told = Message("system", "Be kind.")
    assert read(**{name: "Be kind.", **form}).messages == (told, *HELLO)
    for role in ("system", "developer"):
        assert turns({"role": role, "content": "Be kind."}, ASKED, SAID, system="Be kind. ").messages == (told, *HELLO)
    with pytest.raises(InputError, match=r"field \"system\" and turn 1 say different things for the system"):
        turns({"role": "system", "content": "Be rude."}, ASKED, SAID, system="Be kind.")


def test_several_turns_of_one_role_stay_several() -> None:
    found = turns(SAID, ASKED, ASKED, SAID, SAID)
    assert [message.role[0] for message in found.messages] == list("auuaa")


def test_a_turn_of_weight_0_is_read_and_does_not_count() -> None:
    found = turns(ASKED, {**SAID, "content": "Wrong.", "weight": 0}, ASKED, {**SAID, "weight": 1})
    assert [message.counts for message in found.messages] == [True, False, True, True]
    assert found.messages[1].content == "Wrong."


def test_alpaca_has_an_input_and_a_history() -> None:
    found = read(instruction="Translate.", input="Hi", output="Salut", history=[["Hello", "Hi."]], system="Be kind.")
    told, task = Message("system", "Be kind."), Message("user", "Translate.\nHi")
    assert found.messages == (told, *HELLO, task, Message("assistant", "Salut"))
    assert read(instruction="Translate.", context="Hi", response="Salut").messages == found.messages[3:]


OPENAI = [
    ASKED,
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "21"},
    SAID,
]


def test_tools_are_called_in_openais_form() -> None:
    found = turns(*OPENAI, tools=[{"type": "function", "function": TOOL}])
    assert found.messages == (
        HELLO[0],
        Message("assistant", "", {"tool_calls": [CALL]}),
        Message("tool", "21", {"tool_call_id": "c1"}),
        HELLO[1],
    )
    assert found.tools == ({"type": "function", "function": TOOL},)
    assert found.messages[1].text == json.dumps(FUNCTION)


def test_tools_are_called_in_older_and_other_forms() -> None:
    bare = {"type": "function", "function": FUNCTION}
    expected = [Message("assistant", "", {"tool_calls": [bare]}), Message("tool", "21", {}), HELLO[1]]
    share = [{"from": "human", "value": "Hello"}, {"from": "function_call", "value": json.dumps(FUNCTION)}]
    share += [{"from": "observation", "value": "21"}, {"from": "gpt", "value": "Hi."}]
    found = read(conversations=share, tools=json.dumps([TOOL]))
    assert list(found.messages[1:]) == expected
    assert found.tools == ({"type": "function", "function": TOOL},)
    legacy = [ASKED, {"role": "assistant", "content": None, "function_call": FUNCTION}]
    legacy += [{"role": "function", "name": "weather", "content": "21"}, SAID]
    found = turns(*legacy, functions=[TOOL])
    assert list(found.messages[1:]) == [expected[0], Message("tool", "21", {"name": "weather"}), HELLO[1]]
    assert found.tools == ({"type": "function", "function": TOOL},)


def test_results_stand_in_the_order_of_their_calls() -> None:
    calls = {"role": "assistant", "tool_calls": [{**CALL, "id": name} for name in ("a", "b")]}
    results = [{"role": "tool", "tool_call_id": name, "content": name} for name in ("b", "a")]
    assert [message.content for message in turns(ASKED, calls, *results, SAID).messages[2:4]] == ["a", "b"]


def test_thoughts_have_one_name() -> None:
    for name in ("reasoning_content", "reasoning", "thinking"):
        assert turns(ASKED, {**SAID, name: "Hm."}).messages[1].also == {"reasoning_content": "Hm."}


def call(**fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{**CALL, "function": {**FUNCTION, **fields}}]}


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([ASKED, {**SAID, "refusal": "No."}], 'turn 2: "refusal" is not understood'),
        ([ASKED, {**SAID, "weight": 0.5}], "turn 2: has weight 0.5"),
        ([{**ASKED, "weight": 1}, SAID], "turn 1: has weight 1, but is the user's"),
        ([ASKED, {**SAID, "weight": 0}], "all that the assistant says has weight 0"),
        ([ASKED], "the assistant says nothing"),
        ([SAID], "nobody says anything that the assistant could reply to"),
        ([{"role": "user", "content": [{"type": "image_url"}]}, SAID], "turn 1: part 1 is no text but 'image_url'"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}, "b"]}, SAID], "turn 1: part 2 is no text but 'b'"),
        ([{"role": "user", "content": None}, SAID], 'turn 1: is not an object with "role" and "content"'),
        (["Hello", SAID], 'turn 1: is not an object with "role" and "content"'),
        ([ASKED, {"role": "assistant", "content": "\ud800"}], "turn 2: field \"content\" holds half of a character"),
        ([{"role": 3, "content": "a"}, SAID], "turn 1: is spoken by 3"),
        ([{**ASKED, "tool_calls": [CALL]}, SAID], "turn 1: \"tool_calls\" is for the assistant, and this is the user's"),
        ([{**ASKED, "name": 3}, SAID], 'turn 1: "name" holds a int, not a string'),
        ([ASKED, call(arguments="{"), SAID], "turn 2: what a tool is called with is not valid JSON"),
        ([ASKED, call(arguments="[1]"), SAID], "turn 2: the tool weather is called with no object"),
        ([ASKED, call(name=None), SAID], "turn 2: a call of a tool does not name it"),
        ([ASKED, call(strict=True), SAID], "turn 2: \"strict\" of a tool's call is not understood"),
        ([*OPENAI[:2], {**OPENAI[2], "tool_call_id": "c2"}, SAID], "turn 3: 'c2' is the id of no call before it"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_by_turn(messages: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=r"^chats\.jsonl:7[:,]") as caught:
        turns(*messages)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"images": ["a.png"]}, 'field "images" is not understood'),
        ({"chosen": "a", "rejected": "b"}, 'field "chosen" is not understood'),
        ({"tools": "["}, 'field "tools": the list of tools is not valid JSON'),
        ({"tools": {"name": "a"}}, 'field "tools": is not a list of tools'),
        ({"tools": [{"type": "code_interpreter"}]}, 'field "tools": tool 1 is no function with a name'),
    ],
)
def test_what_stands_beside_and_is_not_understood_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=r"^chats\.jsonl:7[:,]") as caught:
        turns(ASKED, SAID, **fields)
    assert message in str(caught.value)


def test_conversations_differ_by_all_that_is_in_them() -> None:
    task = tasks.get("dialogue")
    assert isinstance(task, Dialogue)
    plain, tool = turns(ASKED, SAID), {"type": "function", "function": TOOL}
    others = [turns(ASKED, SAID, tools=[tool]), turns({**ASKED, "name": "Ann"}, SAID), turns(*OPENAI)]
    assert len({task.key(chat) for chat in (plain, *others)}) == 4
    assert task.key(plain) == "Hello\nHi."
    assert task.texts(others[2]) == ("Hello", json.dumps(FUNCTION), "21", "Hi.")
