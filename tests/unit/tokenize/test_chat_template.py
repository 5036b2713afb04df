"""Chat templates: the sandbox they run in, where in a text the assistant speaks, which template a tokenizer has."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lucidlm.core.errors import InputError
from lucidlm.data.examples.chat_forms import read_chat
from lucidlm.data.examples.records import Row
from lucidlm.tokenize import template_sandbox
from lucidlm.tokenize.chat_prompts import tokenize_chat_prompt, tokenize_chats, with_template
from lucidlm.tokenize.chat_template import CHATML, own_template, template_of
from lucidlm.tokenize.conversation import Chat, Message
from lucidlm.tokenize.template_sandbox import Sandbox
from lucidlm.tokenize.tokenizer import END, Tokenizer

TEXT = "A man in a red coat sits on a bench. user assistant [INST] <think> "
THOUGHTS = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% if loop.last %}<think></think>{% endif %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Writes thoughts into the last reply only, and leaves out those that messages hold."""

INSTRUCTIONS = (
    "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('turns have to alternate') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)
CHAT = Chat(
    (
        Message("user", "A man"),
        Message("assistant", "sits."),
        Message("user", "A coat"),
        Message("assistant", "is red."),
    ),
    "chats.jsonl:7",
)


def tokenizer_with(template: Any) -> Tokenizer:
    made = Tokenizer.train_bpe([TEXT * 3], 300)
    return Tokenizer(made.core, {**made.config, "chat_template": template})


def rendered(template: str, *said: str) -> str:
    messages = [Message("user", content) for content in said]
    return template_of(tokenizer_with(template)).render(messages, reply=False).text


# ---------------------------------------------------------------------- the sandbox


@pytest.mark.parametrize(
    "template",
    [
        "{{ ().__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='x') }}",
        "{{ raise_exception.__globals__.x }}",
        "{{ messages | attr('__class__') }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{% include 'secrets' %}",
        "{{ lipsum() }}",
        "{{ (1).to_bytes(1000000000) }}",
    ],
)
def test_a_template_reaches_nothing(template: str) -> None:
    with pytest.raises(InputError, match="chat template fails"):
        rendered(template, "a")


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(100000000) %}{% endfor %}",
        "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        "{% for a in [1] recursive %}{{ loop([1, 1]) }}{% endfor %}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 'a' * 10000000000 }}",
        "{{ [[0] * 9999] * 9999 }}",
        "{{ 2 ** 100000000 }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ 'a' | center(9999999999) }}",
        "{{ 'a'.ljust(9999999999) }}",
        "{{ ('a' * 9999).replace('a', 'b' * 9999) }}",
        "{{ ('a' * 9999) | replace('a', 'b' * 9999) }}",
        "{{ ('b' * 9999).join(('a' * 9999) | list) }}",
        "{{ ('a' * 9999) | list | join('b' * 9999) }}",
        "{{ ('a' * 9999) | list | tojson(indent=9999) }}",
        "{% set n = namespace(x='aa') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x='aa') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{% set n = namespace(x='aa') %}{% for i in range(99) %}{% set y %}{{ n.x }}{{ n.x }}{% endset %}"
        "{% set n.x = y %}{% endfor %}",
        "{% set n = namespace(x=1) %}{% for i in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}",
        "{% set n = namespace(x=1) %}{% for i in range(99) %}{% set n.x = {'a': n.x, 'b': n.x} %}{% endfor %}",
        "{% set n = namespace(x=3) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
        "{% set n = namespace() %}{% set n.x = [n] %}{{ n }}",
    ],
)
def test_a_template_ends_soon_and_takes_little(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_sandbox, "BUDGET", 2_000_000)
    with pytest.raises(InputError, match="chat template fails"):
        rendered(template, "a")


def test_a_template_has_so_much_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(template_sandbox, "monotonic", lambda: 5.0 * next(clock))
    with pytest.raises(InputError, match="loops or grows without end"):
        rendered("{% for a in range(9) %}{% endfor %}", "a")


def test_long_conversations_may_make_more() -> None:
    long = "a" * 300_000
    template = "{% for m in messages %}" + "{% set x = m.content ~ 'b' %}" * 100 + "{{ x }}{% endfor %}"
    assert rendered(template, long) == long + "b"
    with pytest.raises(InputError, match="without end"):
        rendered(template.replace("m.content", "('a' * 300000)"), "a")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for", "unexpected"),
        ("{{ raise_exception('no system, please') }}", "no system, please"),
        ("{{ nothing.at.all }}", "'nothing' is undefined"),
        ("{{ 1 + 'a' }}", "TypeError"),
        ("{{ '" + "(" * 2_000_000 + "' }}", "longer than"),
        ("{{ " + "(" * 5_000 + ")" * 5_000 + " }}", "recursion"),
    ],
)
def test_what_is_wrong_with_a_template_is_said(template: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        rendered(template, "a")


def test_what_templates_use_is_there() -> None:
    template = (
        "{% set n = namespace(seen=0) %}"
        "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{% set n.seen = n.seen + 1 %}"
        "{{ loop.index0 }}{{ m | tojson }}{{ m.items() | list | length }}{% if n.seen == 2 %}{% break %}{% endif %}"
        "{% endfor %}\n"
        "{%- generation %}{{ messages | map(attribute='content') | join(', ') | upper }}{% endgeneration %}"
        "{{ tools is none }}{{ strftime_now('%Y') | int > 2000 }}{{ dict(a=1).get('a') }}{{ eos_token }}"
    )
    said = ("a", "<b>", "c", "d")
    expected = '1{"role": "user", "content": "<b>"}22{"role": "user", "content": "c"}2A, <B>, C, DTrueTrue1' + END
    assert rendered(template, *said) == expected


def test_one_template_renders_again_and_again() -> None:
    sandbox = Sandbox("{% for i in range(90000) %}{% endfor %}done")
    assert {sandbox.render(0, {}) for _ in range(30)} == {"done"}


# ---------------------------------------------------------------------- which template


def test_of_several_templates_the_default_is_taken() -> None:
    named = [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]
    assert own_template(tokenizer_with(named)) == "d"
    assert own_template(tokenizer_with("x")) == "x"
    assert own_template(tokenizer_with(None)) is None


@pytest.mark.parametrize("template", [3, [], "", " ", [{"name": "tools", "template": "t"}], ["a"], {"default": 3}])
def test_other_things_are_no_template(template: object) -> None:
    with pytest.raises(InputError, match="chat_template is neither"):
        own_template(tokenizer_with(template))


def test_a_tokenizer_without_a_template_gets_ours_if_it_has_the_marks() -> None:
    bare = tokenizer_with(None)
    tuned = with_template(bare)
    assert (tuned.config["chat_template"], tuned.config["eos_token"]) == (CHATML, "<|im_end|>")
    assert with_template(tuned) is tuned
    core = Tokenizer.train_characters(["abc"]).core.from_str(bare.core.to_str().replace("<|im_start|>", "<|begins|>"))
    with pytest.raises(InputError, match=r"no chat template, and no token <\|im_start\|>"):
        with_template(Tokenizer(core))


def test_the_end_of_a_turn_is_the_templates() -> None:
    assert template_of(tokenizer_with(THOUGHTS)).end == tokenizer_with(None).core.token_to_id("<|im_end|>")
    assert template_of(tokenizer_with(INSTRUCTIONS)).end == tokenizer_with(None).eos_id
    spaced = "{% for m in messages %}{{ m.content }} <|mask|>{% endfor %}"
    assert template_of(tokenizer_with(spaced)).end == tokenizer_with(None).mask_id
    assert template_of(tokenizer_with("{% for m in messages %}{{ m.content }}\n{% endfor %}")).end is None


# ---------------------------------------------------------------------- frames


def parts(tokenizer: Tokenizer, one: Any) -> tuple[str, str, str]:
    counted = tokenizer.decode(one.ids[one.counted], skip_special=False)
    prompt = tokenizer.decode(one.ids[: one.prompt], skip_special=False)
    return counted, prompt, tokenizer.decode(one.ids[one.prompt :], skip_special=False)


def test_a_model_is_tuned_with_its_own_template() -> None:
    tokenizer = tokenizer_with(INSTRUCTIONS)
    [one] = tokenize_chats([CHAT], tokenizer, 500)
    counted, prompt, answer = parts(tokenizer, one)
    assert counted == f" sits.{END} is red.{END}"
    assert prompt == f"{END}[INST] A man [/INST] sits.{END}[INST] A coat [/INST]"
    assert answer == f" is red.{END}"
    asked = tokenize_chat_prompt(CHAT.messages[:-1], tokenizer, 500)
    assert np.array_equal(asked.ids, one.ids[: one.prompt])
    assert asked.prompt == len(asked.ids)


def test_what_the_template_itself_writes_into_a_reply_is_learned_where_it_is_not_given() -> None:
    tokenizer = tokenizer_with(THOUGHTS)
    [one] = tokenize_chats([CHAT], tokenizer, 500)
    counted, prompt, answer = parts(tokenizer, one)
    assert counted == "sits.<|im_end|><think></think>is red.<|im_end|>"
    assert prompt.endswith("<|im_start|>assistant\n")
    assert answer == "<think></think>is red.<|im_end|>\n"


def test_replies_that_a_template_changes_cannot_be_learned_but_be_read() -> None:
    tokenizer = tokenizer_with(THOUGHTS)
    said = (Message("user", "A man"), Message("assistant", "hm</think>sits."), Message("user", "on?"))
    with pytest.raises(InputError, match=r"chats.jsonl:9: the chat template does not write what the assistant says"):
        tokenize_chats([Chat(said[:2], "chats.jsonl:9")], tokenizer, 500)
    text = tokenizer.decode(tokenize_chat_prompt(said, tokenizer, 500).ids, skip_special=False)
    assert "sits." in text
    assert "hm" not in text


def test_the_oldest_turns_are_dropped_and_the_template_begins_as_ever() -> None:
    tokenizer = tokenizer_with(INSTRUCTIONS)
    [whole] = tokenize_chats([CHAT], tokenizer, 500)
    [one] = tokenize_chats([CHAT], tokenizer, len(whole.ids) - 4)
    assert parts(tokenizer, one)[1] == f"{END}[INST] A coat [/INST]"
    assert one.left_out == 2
    for room in range(8, len(whole.ids)):
        [one] = tokenize_chats([CHAT], tokenizer, room)
        assert len(one.ids) <= room + 1
        assert one.counted[one.prompt :].any()


def test_a_conversation_that_the_template_refuses_is_named() -> None:
    chat = Chat((Message("system", "Be kind."), *CHAT.messages), "chats.jsonl:8")
    with pytest.raises(InputError, match=r"^chats.jsonl:8: .*turns have to alternate"):
        tokenize_chats([chat], tokenizer_with(INSTRUCTIONS), 500)
    said = [{"role": role, "content": "a"} for role in ("user", "assistant", "assistant")]
    chat = read_chat(Row({"messages": said}, "chats.jsonl:9"))
    with pytest.raises(InputError, match=r"^chats.jsonl:9, turn 3: .*turns have to alternate"):
        tokenize_chats([chat], tokenizer_with(INSTRUCTIONS), 500)


def test_what_has_weight_0_is_read_and_not_learned() -> None:
    tokenizer = tokenizer_with(CHATML)
    right = Message("assistant", "is red.")
    wrong = (*CHAT.messages[:1], Message("assistant", "sits.", counts=False), CHAT.messages[2], right)
    [one] = tokenize_chats([Chat(wrong, "")], tokenizer, 500)
    [whole] = tokenize_chats([CHAT], tokenizer, 500)
    assert parts(tokenizer, one)[0] == "is red.<|im_end|>"
    assert one.ids.tolist() == whole.ids.tolist()


def test_white_space_is_the_templates_to_strip() -> None:
    said = (Message("user", " A man\n"), Message("assistant", "  sits.\n "), Message("user", "\t"), CHAT.messages[3])
    kept = tokenizer_with(CHATML.replace(" | trim", "").replace("+ '\n' }}{% endfor", "}}{% endfor"))
    [one] = tokenize_chats([Chat(said, "")], kept, 500)
    text = kept.decode(one.ids, skip_special=False)
    assert text.startswith("<|im_start|>user\n A man\n<|im_end|><|im_start|>assistant\n  sits.\n <|im_end|>")
    assert parts(kept, one)[0] == "  sits.\n <|im_end|>is red.<|im_end|>"
    [one] = tokenize_chats([Chat(said, "")], tokenizer_with(CHATML), 500)
    assert parts(tokenizer_with(CHATML), one)[0] == "sits.<|im_end|>is red.<|im_end|>"


def test_several_turns_of_one_role_are_several() -> None:
    tokenizer = tokenizer_with(CHATML)
    talk = (Message("assistant", "sits."), *CHAT.messages[:1], *CHAT.messages)
    [one] = tokenize_chats([Chat(talk, "")], tokenizer, 500)
    roles = [line for line in tokenizer.decode(one.ids, skip_special=False).split("<|im_start|>") if line]
    assert [line.split("\n")[0][0] for line in roles] == list("auuaua")
    left_out = {tokenize_chats([Chat(talk, "")], tokenizer, room)[0].left_out for room in range(40, 100, 2)}
    assert left_out == {0, 1, 4}  # what is left begins with the first of the user's turns


# ---------------------------------------------------------------------- what a template leaves out


CALLS = (
    "{% if tools %}{{ tools | tojson }}<|im_end|>{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}{{ ': ' ~ m.name if m.name }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}[{{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ONLY_USERS = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% elif m.role == 'assistant' %}"
    "{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
TOOL = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {}}}
WITH_TOOLS = {
    "messages": [
        {"role": "user", "content": "A coat?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"function": {"name": "look", "arguments": {"at": "coat"}}}],
        },
        {"role": "tool", "content": "red"},
        {"role": "assistant", "content": "is red."},
    ],
    "tools": [TOOL],
}


def chat_of(**fields: Any) -> Chat:
    return read_chat(Row(fields, "chats.jsonl:7"))


def said(*messages: dict[str, Any]) -> Chat:
    return chat_of(messages=[*messages, {"role": "assistant", "content": "sits."}])


def test_calls_of_tools_are_learned_to_the_end_of_their_turn() -> None:
    tokenizer = tokenizer_with(CALLS)
    [one] = tokenize_chats([chat_of(**WITH_TOOLS)], tokenizer, 500)
    assert parts(tokenizer, one)[0] == '[look {"at": "coat"}]<|im_end|>is red.<|im_end|>'
    [last] = tokenize_chats(
        [replace(chat_of(**WITH_TOOLS), messages=chat_of(**WITH_TOOLS).messages[:2])], tokenizer, 500
    )
    counted, prompt, answer = parts(tokenizer, last)
    assert (counted, answer) == ('[look {"at": "coat"}]<|im_end|>', '[look {"at": "coat"}]<|im_end|>\n')
    assert prompt.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize(
    ("template", "chat", "what"),
    [
        (CHATML, chat_of(**WITH_TOOLS), "turn 2: the chat template leaves out the call of look"),
        (CHATML, said({"role": "user", "name": "Ann", "content": "a"}),
         "turn 1: the chat template leaves out the user's name"),
        (CHATML, chat_of(messages=[
            {"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "reasoning": "c"}]),
         "turn 2: the chat template leaves out what the assistant thinks"),
        (CHATML, replace(said({"role": "user", "content": "a"}), tools=(TOOL,)),
         "the tools: the chat template leaves out the name of the tool look"),
        (ONLY_USERS, said({"role": "system", "content": "a"}, {"role": "user", "content": "b"}),
         "turn 1: the chat template leaves out what the system says"),
        (ONLY_USERS, said({"role": "user", "content": "b"}, {"role": "tool", "content": "a"}),
         "turn 2: the chat template leaves out what a tool returned"),
        (ONLY_USERS, chat_of(system="a", instruction="b", output="c"),
         'field "system": the chat template leaves out what the system says'),
        (CALLS.replace("m.content", "m.content if not m.tool_calls"), chat_of(messages=[
            WITH_TOOLS["messages"][0], {**WITH_TOOLS["messages"][1], "content": "I look."}]),
         "turn 2: the chat template leaves out what the assistant says"),
        (CALLS.replace("c.function.arguments", "[]"), chat_of(**WITH_TOOLS),
         "turn 2: the chat template leaves out what look is called with"),
    ],
)  # fmt: skip
def test_what_a_template_leaves_out_is_refused_by_row_and_turn(template: str, chat: Chat, what: str) -> None:
    with pytest.raises(InputError) as caught:
        tokenize_chats([chat], tokenizer_with(template), 500)
    assert str(caught.value).startswith(f"chats.jsonl:7, {what}")


def test_what_a_prompt_says_is_not_left_out_either() -> None:
    with pytest.raises(InputError, match="leaves out what the system says"):
        tokenize_chat_prompt([Message("system", "Be kind."), Message("user", "Hi")], tokenizer_with(ONLY_USERS), 500)


def test_marks_that_a_template_does_not_like_are_tried_one_by_one() -> None:
    picky = CALLS.replace(
        "<|im_start|>", "{% if m.name and m.name != 'Ann' %}{{ raise_exception('who?') }}{% endif %}<|im_start|>", 1
    )
    tokenizer = tokenizer_with(picky)
    chat = said({"role": "user", "name": "Ann", "content": "a"})
    assert "user: Ann\na" in tokenizer.decode(tokenize_chats([chat], tokenizer, 500)[0].ids, skip_special=False)


def test_what_tools_are_called_with_is_given_in_the_form_that_the_template_writes() -> None:
    texts = {}
    for name, template in (("object", CALLS), ("text", CALLS.replace("arguments | tojson", "arguments + ''"))):
        for arguments in ({"at": "coat"}, '{"at": "coat"}'):
            fields = json.loads(json.dumps(WITH_TOOLS))
            fields["messages"][1]["tool_calls"][0]["function"]["arguments"] = arguments
            tokenizer = tokenizer_with(template)
            texts[name, str(arguments)] = parts(tokenizer, tokenize_chats([chat_of(**fields)], tokenizer, 500)[0])[0]
    assert set(texts.values()) == {'[look {"at": "coat"}]<|im_end|>is red.<|im_end|>'}
    assert len(texts) == 4


def test_a_template_for_tools_is_taken_where_there_are_some() -> None:
    tokenizer = tokenizer_with([{"name": "default", "template": CHATML}, {"name": "tool_use", "template": CALLS}])
    [one] = tokenize_chats([chat_of(**WITH_TOOLS)], tokenizer, 500)
    assert "[look" in parts(tokenizer, one)[0]
    [plain] = tokenize_chats([CHAT], tokenizer, 500)
    assert plain.ids.tolist() == tokenize_chats([CHAT], tokenizer_with(CHATML), 500)[0].ids.tolist()


def test_there_is_nothing_to_reply_to_the_assistant() -> None:
    for said in ((), CHAT.messages):
        with pytest.raises(InputError, match="nothing to reply to"):
            tokenize_chat_prompt(said, tokenizer_with(None), 500)


def test_messages_may_hold_private_characters() -> None:
    tokenizer = tokenizer_with(CHATML)
    said = "\U00100000 <|im_end|> \U00100001 \U00100007"
    [one] = tokenize_chats([Chat((Message("user", said), Message("assistant", said)), "")], tokenizer, 900)
    assert parts(tokenizer, one)[2] == said + "<|im_end|>\n"
    assert list(one.ids).count(tokenizer.core.token_to_id("<|im_end|>")) == 2
