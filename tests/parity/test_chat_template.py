"""Chat templates: what transformers makes of a conversation, token by token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from lucidlm.data.chat_template import CHATML, template_of
from lucidlm.data.examples import Message
from lucidlm.data.tokenizer import Tokenizer

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
