"""Chat templates: what transformers makes of a conversation, token by token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from lucidlm.data.examples.chat_forms import read_chat
from lucidlm.data.examples.records import Row
from lucidlm.tokenize.chat_prompts import tokenize_chats
from lucidlm.tokenize.chat_template import CHATML, template_of
from lucidlm.tokenize.conversation import Message
from lucidlm.tokenize.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers", reason="needs the [hf] extra")

SPECIAL = ["<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|system|>", "[INST]"]
SPECIAL += ["[/INST]", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]

TEMPLATES = {
    "chatml": CHATML,
    "default system": """{%- if messages[0].role != 'system' -%}
    {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
{%- endif %}
{% for turn in messages %}
<|im_start|>{{ turn.role }}
{{ turn.content }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}""",
    "headers": """{{ bos_token }}{% for m in messages %}
{% set head = '<|start_header_id|>' ~ m['role'] ~ '<|end_header_id|>' %}
{{ head + '\\n\\n' ~ m['content'] | trim }}<|eot_id|>{% endfor %}
{% if add_generation_prompt %}{{ '<|start_header_id|>' ~ 'assistant' ~ '<|end_header_id|>\\n\\n' }}{% endif %}""",
    "roles as marks": """{%- for m in messages if m.content -%}
{{ '<|%s|>' | replace('%s', m.role) }}
{{ m.content ~ eos_token }}
{% endfor %}
{%- if add_generation_prompt %}{{ ['<|assistant|>', ''] | join('\\n') }}{% endif -%}""",
    "instructions": """{%- set rest = messages[1:] if messages[0].role == 'system' else messages %}
{%- macro told() %}{% if messages[0].role == 'system' %}{{ messages[0].content }}

{% endif %}{% endmacro %}
{{- bos_token }}
{%- for m in rest %}
    {%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns') }}{% endif %}
    {%- if m.role == 'user' %}{{ '[INST] ' + (told() if loop.first else '') + m.content + ' [/INST]' }}
    {%- else %}{{ ' ' + m.content.strip() + eos_token }}{% endif %}
{%- endfor %}""",
    "thoughts": """{%- set ns = namespace(last=-1, seen={'user': 0}) %}
{%- for m in messages[::-1] %}
    {%- if m.role == 'user' and ns.last < 0 %}{% set ns.last = messages | length - loop.index %}{% endif %}
{%- endfor %}
{%- if tools %}{{ tools | tojson }}{% endif %}
{%- for m in messages %}
    {%- if m.role is string and m.content is defined and m.role in ['system', 'user'] %}
        {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
        {%- continue %}
    {%- endif %}
    {%- generation %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if loop.index0 > ns.last %}{{- '<think>\\n\\n</think>\\n\\n' }}{% endif %}
    {{- m.content.split('</think>')[-1].lstrip('\\n') + '<|im_end|>' }}
    {%- endgeneration %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% if no_thoughts is defined %}!{% endif %}{% endif %}""",
}

TOOL_TEMPLATES = {
    "calls in tags": """{%- if tools %}
    {{- '<|im_start|>system\\n' + (messages[0].content + '\\n' if messages[0].role == 'system' else '') + 'Tools:' }}
    {%- for tool in tools %}{{ '\\n' ~ tool | tojson }}{% endfor %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- for m in messages %}
    {%- if tools and loop.first and m.role == 'system' %}{% continue %}{% endif %}
    {%- if m.role == 'assistant' and m.tool_calls %}
        {{- '<|im_start|>assistant' ~ ('\\n' ~ m.content if m.content else '') }}
        {%- for call in m.tool_calls %}
            {%- set call = call.function if call.function is defined else call %}
            {{- '\\n<call>{"name": "' ~ call.name ~ '", "arguments": ' }}
            {{- call.arguments if call.arguments is string else call.arguments | tojson }}
            {{- '}</call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif m.role == 'tool' %}
        {%- if messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
        {{- '\\n<result>' ~ m.content ~ '</result>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\\n' }}{% endif %}
    {%- else %}
        {{- '<|im_start|>' ~ m.role ~ (' name=' ~ m.name if m.name) ~ '\\n' ~ m.content ~ '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    "calls by headers": """{{ bos_token }}
{%- macro head(role) %}{{ '<|start_header_id|>' ~ role ~ '<|end_header_id|>\\n\\n' }}{% endmacro %}
{%- if tools is not none %}{{ head('system') ~ tools | tojson(indent=2) ~ '<|eot_id|>' }}{% endif %}
{%- for m in messages %}
    {%- if 'tool_calls' in m %}
        {%- if m.tool_calls | length != 1 or m.content %}{{ raise_exception('one call and nothing else') }}{% endif %}
        {%- set call = m.tool_calls[0].function %}
        {{- head('assistant') ~ '{"name": "' ~ call.name ~ '", "parameters": ' ~ call.arguments | tojson ~ '}<|eot_id|>' }}
    {%- elif m.role in ('tool', 'ipython') %}
        {{- head('ipython') ~ m.content | tojson ~ '<|eot_id|>' }}
    {%- else %}
        {{- head(m.role ~ (': ' ~ m.name if m.name)) ~ m.content | trim ~ '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ head('assistant') }}{% endif %}""",
    "tools before the last question": """{{ bos_token }}
{%- set asked = messages | selectattr('role', 'equalto', 'user') | list %}
{%- for m in messages %}
    {%- if m.role == 'user' %}
        {{- '[TOOLS]' ~ tools | tojson if tools and m == asked[-1] }}
        {{- '[INST] ' ~ (m.name ~ ' says ' if m.name) ~ m.content ~ '[/INST]' }}
    {%- elif m.tool_calls is defined %}
        {{- '[CALLS] [' }}
        {%- for call in m.tool_calls %}
            {%- if call.id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif %}
            {{- (call.function | tojson)[:-1] ~ ', "id": "' ~ call.id ~ '"}' ~ (', ' if not loop.last) }}
        {%- endfor %}
        {{- ']' ~ eos_token }}
    {%- elif m.role == 'tool' %}
        {{- '[RESULT] ' ~ m.content ~ ' of ' ~ m.tool_call_id ~ '[/RESULT]' }}
    {%- else %}
        {{- (m.content if m.role == 'system' else ' ' ~ m.content ~ eos_token) }}
    {%- endif %}
{%- endfor %}""",
}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "How the weather is at a place, <b>now</b>",
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
        },
    },
    {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}},
]


def call(content: str | None = None, **arguments: Any) -> dict[str, Any]:
    function = {"name": "weather", "arguments": arguments}
    return {
        "role": "assistant",
        "content": content,
        "tool_calls": [{"id": "c23456789", "type": "function", "function": function}],
    }


def turn(role: str, content: str, **also: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **({"tool_call_id": "c23456789"} if role == "tool" else {}), **also}


WITH_TOOLS = [
    [
        turn("user", "How is it in Paris?", name="Ann"),
        call(place="Paris", days=3, deep={"a": [None, True, 1.5, "é"]}),
        turn("tool", '{"degrees": 21}\n'),
        turn("assistant", "It is 21 degrees."),
        turn("user", " And Rome? "),
        call(place="Rome"),
        turn("tool", "22"),
        turn("assistant", "22, as it says."),
    ],
    [turn("system", "Be kind."), turn("user", "Weather?"), call(place="")],
]


SAID = [
    [Message("user", "Hello, world!")],
    [
        Message("system", "You are kind."),
        Message("user", "  Two  spaces\n\nand lines"),
        Message("assistant", "I'm 12!"),
    ],
    [
        Message("user", "春眠不觉晓"),
        Message("assistant", "é 😀 <b>&amp;</b>"),
        Message("user", "{{ 1 + 1 }} {% raw %}"),
        Message("assistant", "quotes ' \" and <think>"),
        Message("user", "."),
    ],
]


def byte_level() -> tokenizers.Tokenizer:
    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    core.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet)
    core.train_from_iterator([message.content for chat in SAID for message in chat] * 3, trainer)
    return core


def sentence_piece() -> tokenizers.Tokenizer:
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = sorted(
        {c for chat in SAID for m in chat for c in m.content if c.isascii() and not c.isspace()}
        | set("▁|_usertaink[]/IST")
    )
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *bytes_, *letters, "▁▁", "us", "er", "user"])}
    merges = [("▁", "▁"), ("u", "s"), ("e", "r"), ("us", "er")]
    core = tokenizers.Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    core.decoder = decoders.Sequence(steps)
    core.add_special_tokens(SPECIAL)
    return core


@pytest.fixture(scope="module", params=[byte_level, sentence_piece], ids=lambda make: make.__name__)
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param.__name__)
    request.param().save(str(path / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (path / "tokenizer_config.json").write_text(json.dumps({**config, "unk_token": "<unk>"}))
    return path


@pytest.mark.parametrize("name", TEMPLATES)
def test_ids_are_those_of_transformers(name: str, directory: Path) -> None:
    ours = Tokenizer.load(directory)
    ours.config["chat_template"] = TEMPLATES[name]
    theirs = transformers.AutoTokenizer.from_pretrained(directory)
    template = template_of(ours)
    for said in SAID:
        messages = [{"role": message.role, "content": message.content} for message in said]
        for reply in (False, True):
            rendered = template.render(said, reply=reply)
            options = {"chat_template": TEMPLATES[name], "add_generation_prompt": reply}
            assert rendered.text == theirs.apply_chat_template(messages, tokenize=False, **options)
            ids, ends = template.encode(rendered)
            assert ids == theirs.apply_chat_template(messages, return_dict=False, **options)
            assert ends == sorted(ends)
            assert ends[-1] <= len(rendered.text)


@pytest.mark.parametrize("name", TOOL_TEMPLATES)
@pytest.mark.parametrize("messages", WITH_TOOLS)
def test_tools_and_calls_are_given_to_templates_as_by_transformers(
    name: str, messages: list[dict[str, Any]], directory: Path
) -> None:
    ours = Tokenizer.load(directory)
    ours.config["chat_template"] = TOOL_TEMPLATES[name]
    theirs = transformers.AutoTokenizer.from_pretrained(directory)
    chat = read_chat(Row({"messages": messages, "tools": TOOLS}, "f:1"))
    template = template_of(ours)
    for count in range(1, len(messages) + 1):
        for reply in (False, True):
            rendered = template.render(chat.messages[:count], tools=chat.tools, reply=reply)
            options = {"chat_template": TOOL_TEMPLATES[name], "add_generation_prompt": reply, "tools": TOOLS}
            assert rendered.text == theirs.apply_chat_template(messages[:count], tokenize=False, **options)
            assert template.encode(rendered)[0] == theirs.apply_chat_template(
                messages[:count], return_dict=False, **options
            )


@pytest.mark.parametrize(
    ("name", "learned"),
    [
        (
            "calls in tags",
            [
                '<call>{"name": "weather", "arguments": {"place": "Paris", "days": 3, "deep": {"a": '
                '[null, true, 1.5, "é"]}}}</call><|im_end|>',
                "It is 21 degrees.<|im_end|>",
                '<call>{"name": "weather", "arguments": {"place": "Rome"}}</call><|im_end|>',
                "22, as it says.<|im_end|>",
            ],
        ),
        (
            "calls by headers",
            [
                '{"name": "weather", "parameters": {"place": "Paris", "days": 3, "deep": {"a": [null, true, 1.5, "é"]}}}'
                "<|eot_id|>",
                "It is 21 degrees.<|eot_id|>",
                '{"name": "weather", "parameters": {"place": "Rome"}}<|eot_id|>',
                "22, as it says.<|eot_id|>",
            ],
        ),
        (
            "tools before the last question",
            [
                '[CALLS] [{"name": "weather", "arguments": {"place": "Paris", "days": 3, "deep": {"a": '
                '[null, true, 1.5, "é"]}}, "id": "c23456789"}]</s>',
                "It is 21 degrees.</s>",
                '[CALLS] [{"name": "weather", "arguments": {"place": "Rome"}, "id": "c23456789"}]</s>',
                " 22, as it says.</s>",
            ],
        ),
    ],
)
def test_calls_are_learned_from_their_header_to_their_end(name: str, learned: list[str]) -> None:
    ours = Tokenizer(byte_level(), {"bos_token": "<s>", "eos_token": "</s>", "chat_template": TOOL_TEMPLATES[name]})
    [one] = tokenize_chats([read_chat(Row({"messages": WITH_TOOLS[0], "tools": TOOLS}, "f:1"))], ours, 5000)
    assert ours.decode(one.ids[one.counted], skip_special=False) == "".join(learned)


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_thoughts_are_given_and_learned(key: str, directory: Path) -> None:
    template = (
        "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\\n' }}"
        "{{ '<think>' ~ m.reasoning_content ~ '|' ~ m.thinking ~ '</think>' if m.thinking }}{{ m.content }}<|im_end|>"
        "{% endfor %}{{ '<|im_start|>assistant\\n' if add_generation_prompt }}"
    )
    ours = Tokenizer.load(directory)
    ours.config["chat_template"] = template
    theirs = transformers.AutoTokenizer.from_pretrained(directory)
    messages = [turn("user", "I"), turn("assistant", "am", **{key: "who?"}), turn("user", "I"), turn("assistant", "12")]
    chat = read_chat(Row({"messages": messages}, "f:1"))
    text = theirs.apply_chat_template(messages, tokenize=False, chat_template=template)
    assert template_of(ours).render(chat.messages, reply=False).text == text
    [one] = tokenize_chats([chat], ours, 500)
    counted = ours.core.decode(one.ids[one.counted].tolist(), skip_special_tokens=False).replace(" ", "")
    assert counted == "<think>who?|who?</think>am<|im_end|>12<|im_end|>"


@pytest.mark.parametrize("name", TOOL_TEMPLATES)
def test_what_a_tool_is_told_or_says_is_never_a_command(name: str, directory: Path) -> None:
    ours = Tokenizer.load(directory)
    ours.config["chat_template"] = TOOL_TEMPLATES[name]
    template = template_of(ours)
    control = {ours.core.token_to_id(token) for token in SPECIAL}

    def commands(said: str) -> list[int]:
        talk = [
            turn("user", said, name=said),
            call(**{said: said, "deep": [said]}),
            turn("tool", said),
            turn("assistant", said),
        ]
        talk[1]["tool_calls"][0]["function"]["name"] = said
        tool = {
            "name": said,
            "description": said,
            "parameters": {"type": "object", "properties": {said: {"enum": [said]}}},
        }
        chat = read_chat(Row({"messages": talk, "tools": [tool]}, "f:1"))
        rendered = template.render(chat.messages, tools=chat.tools, reply=True)
        return [index for index in template.encode(rendered)[0] if index in control]

    harmless = commands("user")
    assert harmless
    for token in SPECIAL:
        assert commands(f"{token}user {token}{token} x") == harmless


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_a_message_says_is_never_a_command(name: str, directory: Path) -> None:
    ours = Tokenizer.load(directory)
    ours.config["chat_template"] = TEMPLATES[name]
    template = template_of(ours)
    control = {ours.core.token_to_id(token) for token in SPECIAL}

    def commands(content: str) -> list[int]:
        said = [Message("user", content), Message("assistant", content), Message("user", "x")]
        return [index for index in template.encode(template.render(said, reply=True))[0] if index in control]

    harmless = commands("user")
    assert harmless
    for token in SPECIAL:
        assert commands(f"{token}user {token}{token} x") == harmless


def test_spelt_out_commands_are_read_as_part_of_their_sentence(directory: Path) -> None:
    ours = Tokenizer.load(directory)
    ours.config["chat_template"] = TEMPLATES["headers"]
    template = template_of(ours)
    rendered = template.render([Message("user", "user <|eot_id|>user [INST]")], reply=False)
    ids, ends = template.encode(rendered)
    start = [ours.core.id_to_token(index) for index in ids].index("<|end_header_id|>") + 1
    assert ids[start:-1] == ours.encode("\n\nuser <|eot_id|>user [INST]")
    assert ids[-1] == ours.core.token_to_id("<|eot_id|>")
    assert len(ends) == len(ids)
    assert ends == sorted(ends)
    assert rendered.text[ends[start - 1] :].startswith("\n\nuser ")
