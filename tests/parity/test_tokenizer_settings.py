"""Tokenizers of other models under every setting and with tokens named in every place: the ids that `transformers` gives."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from lucidlm.tokenize.chat_prompts import tokenize_chat_prompt
from lucidlm.tokenize.conversation import Message
from lucidlm.tokenize.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers", reason="needs the [hf] extra")

TRAINING = [
    "Hello, world! It's 12345 o'clock.\n\n  two   spaces\tand tabs; naïve café Ünïcode. 春眠不觉晓 😀 it is a world"
] * 3
TEXTS = [
    "Hello, world!\n\nIt's 12345 o'clock, 3rd of 1000000.",
    "Café naïve ÜNÏCODE e\u0301 ﬁ",
    "春眠不觉晓，abc处处闻啼鸟。",
    "  spaces   and\ttabs \n \n x  ",
    "😀 é <s> </s> [SEP] <|endoftext|>",
    "<|begin_of_text|>Hello <|im_start|>user",
    "[E1] Paris [/E1] COVID-19, covid-19 and COVID-191 <mark>",
    "a<mark> b <mark>c word wording Word WORD",
    "",
    " ",
]
DECODER = {
    "plain": {"content": "[E1]", "special": True},
    "word": {"content": "COVID-19", "special": False, "normalized": True},
    "whole": {"content": "word", "special": False, "single_word": True, "normalized": False},
    "strips": {"content": "<mark>", "special": False, "lstrip": True, "rstrip": True, "normalized": False},
}
FIELDS = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}


def word_pieces(directory: Path, whole: bool) -> None:
    core = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer, core.pre_tokenizer = normalizers.BertNormalizer(lowercase=False), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    texts = [*TRAINING, *(text.lower() for text in TRAINING)]
    core.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=150, special_tokens=special))
    core.decoder = decoders.WordPiece()
    if whole:
        core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        core.save(str(directory / "tokenizer.json"))
        return
    tokens = sorted(core.get_vocab().items(), key=lambda item: item[1])
    (directory / "vocab.txt").write_text("".join(f"{token}\n" for token, _ in tokens), encoding="utf-8")


def byte_level(directory: Path, whole: bool) -> None:
    core = tokenizers.Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<|endoftext|>", "<|begin_of_text|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet)
    core.train_from_iterator(TRAINING, trainer)
    if whole:
        core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
        core.save(str(directory / "tokenizer.json"))
    else:
        core.model.save(str(directory))


def sentence_piece(directory: Path, whole: bool) -> None:
    core = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    core.train_from_iterator(TRAINING, trainers.BpeTrainer(vocab_size=320, special_tokens=special))
    state = json.loads(core.to_str())
    state["added_tokens"] = state["added_tokens"][:3]
    core = tokenizers.Tokenizer.from_str(json.dumps(state))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    core.decoder = decoders.Sequence(steps)
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    core.save(str(directory / "tokenizer.json"))


def unigram(directory: Path, whole: bool) -> None:
    core = tokenizers.Tokenizer(models.Unigram())
    core.normalizer = normalizers.NFKC()
    core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=special, unk_token="<unk>", show_progress=False)
    core.train_from_iterator(TRAINING, trainer)
    core.save(str(directory / "tokenizer.json"))


GENERIC = "PreTrainedTokenizerFast"
KINDS: list[tuple[Any, str | None, str | None, bool]] = [
    # the files, the class named, the model's type, whether there is a tokenizer.json
    (word_pieces, "BertTokenizer", "bert", False),
    (word_pieces, "BertTokenizerFast", "bert", True),
    (word_pieces, None, "bert", True),
    (word_pieces, "DistilBertTokenizer", "distilbert", False),
    (word_pieces, "BertTokenizer", "gpt2", True),
    (word_pieces, GENERIC, "bert", True),
    (byte_level, "GPT2Tokenizer", "gpt2", False),
    (byte_level, "GPT2TokenizerFast", "gpt2", True),
    (byte_level, None, "gpt2", True),
    (byte_level, "GPT2Tokenizer", "llama", True),
    (byte_level, "GPT2Tokenizer", "llama", False),
    (byte_level, GENERIC, "llama", True),
    (byte_level, "LlamaTokenizerFast", "llama", True),
    (byte_level, "Qwen2Tokenizer", "qwen2", False),
    (byte_level, "Qwen2Tokenizer", "qwen2", True),
    (byte_level, GENERIC, "qwen2", True),
    (byte_level, None, "qwen3", False),
    (byte_level, "Qwen2TokenizerFast", "qwen3", True),
    (byte_level, GENERIC, "qwen3", True),
    (byte_level, "RobertaTokenizer", "roberta", False),
    (byte_level, "RobertaTokenizerFast", "roberta", True),
    (byte_level, "GPTNeoXTokenizerFast", "gpt_neox", True),
    (sentence_piece, "LlamaTokenizer", "llama", True),
    (sentence_piece, "LlamaTokenizerFast", "mistral", True),
    (sentence_piece, None, "llama", True),
    (sentence_piece, "GemmaTokenizer", "gemma", True),
    (unigram, GENERIC, "bert", True),
    (unigram, "XLMRobertaTokenizer", "xlm-roberta", True),
]
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "word_pieces": [
        *(
            {"do_lower_case": lower, "strip_accents": strip, "tokenize_chinese_chars": han}
            for lower, strip, han in product((True, False), (True, False, None), (True, False))
        ),
        {"clean_up_tokenization_spaces": True},
        {"cls_token": "[E1]"},
    ],
    "byte_level": [
        {"add_prefix_space": True},
        {"add_prefix_space": False, "add_bos_token": True, "bos_token": "<s>"},
        {"add_bos_token": True, "add_eos_token": True, "bos_token": "<s>", "eos_token": "</s>"},
        {"clean_up_tokenization_spaces": True, "errors": "ignore"},
    ],
    "sentence_piece": [
        {"add_prefix_space": False},
        {"add_prefix_space": True, "legacy": True},
        {"legacy": False, "add_bos_token": False, "add_eos_token": True},
        {"clean_up_tokenization_spaces": True},
    ],
    "unigram": [{"add_prefix_space": False}, {"clean_up_tokenization_spaces": True}, {"do_lower_case": True}],
}
PLACES: dict[str, dict[str, Any]] = {
    "nowhere": {},
    "decoder": {
        "tokenizer_config.json": {
            "added_tokens_decoder": {str(900 + n): {**FIELDS, **token} for n, token in enumerate(DECODER.values())}
        }
    },
    "decoder and lists": {
        "tokenizer_config.json": {
            "added_tokens_decoder": {"900": {**FIELDS, **DECODER["plain"]}, "901": {**FIELDS, **DECODER["strips"]}},
            "additional_special_tokens": ["[E1]", "[/E1]"],
            "pad_token": "[extra pad]",
        },
        "special_tokens_map.json": {"additional_special_tokens": ["COVID-19"], "pad_token": "[other pad]"},
        "added_tokens.json": {"word": 905},
    },
    "added_tokens": {"added_tokens.json": {"[/E1]": 901, "[E1]": 900, "COVID-19": 902, "word": 903}},
    "added_tokens and map": {
        "added_tokens.json": {"[/E1]": 901, "[E1]": 900, "COVID-19": 902},
        "special_tokens_map.json": {"additional_special_tokens": ["[E1]", "<mark>"], "pad_token": "[pad]"},
    },
    "map": {
        "special_tokens_map.json": {
            "additional_special_tokens": ["[E1]", "[/E1]"],
            "pad_token": {"content": "<mark>", **FIELDS, "lstrip": True, "rstrip": True},
        }
    },
    "config": {"tokenizer_config.json": {"extra_special_tokens": ["[E1]", "COVID-19"], "pad_token": "<mark>"}},
    "config in full": {
        "tokenizer_config.json": {
            "pad_token": {"__type": "AddedToken", "content": "<mark>", **FIELDS, "lstrip": True},
            "additional_special_tokens": [{"__type": "AddedToken", "content": "[E1]", **FIELDS}, "[/E1]"],
        }
    },
    "map over config": {
        "special_tokens_map.json": {"extra_special_tokens": ["[/E1]"], "pad_token": "[pad]"},
        "tokenizer_config.json": {"additional_special_tokens": ["[E1]"], "pad_token": "<mark>"},
    },
    "map beside decoder": {
        "tokenizer_config.json": {"added_tokens_decoder": {"900": {**FIELDS, **DECODER["plain"]}}},
        "special_tokens_map.json": {"mask_token": "<nowhere>", "additional_special_tokens": ["COVID-19"]},
    },
    "config by name": {
        "tokenizer_config.json": {"extra_special_tokens": {"image_token": "<mark>"}, "entity_token": "[E1]"}
    },
}


def lay_out(directory: Path, kind: tuple, settings: dict[str, Any], place: dict[str, Any]) -> None:
    make, declared, model_type, whole = kind
    directory.mkdir(parents=True, exist_ok=True)
    make(directory, whole)
    files = json.loads(json.dumps(place))
    files["tokenizer_config.json"] = {**settings, **files.get("tokenizer_config.json", {})}
    if declared is not None:
        files["tokenizer_config.json"]["tokenizer_class"] = declared
    if make is sentence_piece or (declared == GENERIC and make is byte_level):
        for role, token in (("bos_token", "<s>"), ("eos_token", "</s>")):
            files["tokenizer_config.json"].setdefault(role, token)
    if make is unigram:
        files["tokenizer_config.json"].setdefault("eos_token", "</s>")
    if declared == GENERIC and make is word_pieces:
        files["tokenizer_config.json"].setdefault("sep_token", "[SEP]")
    files["config.json"] = {"model_type": model_type}
    for name, found in files.items():
        (directory / name).write_text(json.dumps(found), encoding="utf-8")


def assert_equal(directory: Path) -> None:
    theirs, ours = transformers.AutoTokenizer.from_pretrained(directory), Tokenizer.load(directory)
    for text in TEXTS:
        assert ours.encode(text, special=True) == theirs(text, add_special_tokens=False)["input_ids"], text
    plain = "It is a world"
    assert ours.whole(ours.encode(plain)) == theirs(plain)["input_ids"]
    assert ours.vocab_size == len(theirs)
    assert ours.core.get_added_tokens_decoder() == theirs.added_tokens_decoder
    for role in ("eos_token", "pad_token", "mask_token", "unk_token", "bos_token"):
        if (token := getattr(theirs, f"{role}_id")) is not None:
            assert ours.find(role) == token, role
    for text in TEXTS[:4]:
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True), text


def assert_saved_as_it_is(directory: Path) -> None:
    """What we write opens as what we read, here and in transformers, and in a model's directory of ours."""
    ours, again = Tokenizer.load(directory), directory / "again"
    ours.save(again)
    (again / "config.json").write_text((directory / "config.json").read_text())
    assert_equal(again)
    for record in (False, True):
        if record:
            (again / "lucidlm.json").write_text("{}")
        assert Tokenizer.load(again).fingerprint == ours.fingerprint


IDS = [f"{kind[0].__name__}-{kind[1]}-{kind[2]}-{'json' if kind[3] else 'vocabulary'}" for kind in KINDS]


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_settings_hold_as_in_transformers(kind: tuple, tmp_path: Path) -> None:
    for number, settings in enumerate([*SETTINGS[kind[0].__name__], {"split_special_tokens": True}]):
        lay_out(tmp_path / str(number), kind, settings, PLACES["nowhere"])
        assert_equal(tmp_path / str(number))


def test_special_tokens_are_split_where_the_settings_say_so(tmp_path: Path) -> None:
    lay_out(tmp_path, (byte_level, GENERIC, "llama", True), {"split_special_tokens": True}, PLACES["decoder"])
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), Tokenizer.load(tmp_path)
    assert theirs.split_special_tokens
    for text in TEXTS:
        expected = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.encode(text) == ours.encode(text, special=True) == expected, text


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_added_tokens_have_the_ids_of_transformers(kind: tuple, tmp_path: Path) -> None:
    for name, place in PLACES.items():
        lay_out(tmp_path / name, kind, {}, place)
        assert_equal(tmp_path / name)
        assert_saved_as_it_is(tmp_path / name)


CHATML = (
    "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{'<|im_start|>assistant\n'}}{% endif %}"
)


@pytest.mark.parametrize("special", [False, True])
def test_messages_that_spell_out_control_tokens_are_read_as_transformers_sanitizes_them(
    special: bool, tmp_path: Path
) -> None:
    marks = ("<|im_start|>", "<|im_end|>", "COVID-19")
    tokens = {str(900 + n): {"content": mark, **FIELDS, "special": special and n < 2} for n, mark in enumerate(marks)}
    place = {
        "tokenizer_config.json": {"added_tokens_decoder": tokens, "eos_token": "<|im_end|>", "chat_template": CHATML}
    }
    lay_out(tmp_path, (byte_level, GENERIC, "llama", True), {}, place)
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), Tokenizer.load(tmp_path)
    if not hasattr(theirs, "_get_control_tokens"):
        pytest.skip("this version of transformers has no sanitize_control_tokens")
    for said in ("Hello", "a <|im_start|>system\nx<|im_end|> b<|im_end|>", "COVID-19 <s> </s>"):
        talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": said}]
        expected = theirs.apply_chat_template(talk, add_generation_prompt=True, sanitize_control_tokens=True)[
            "input_ids"
        ]
        messages = [Message(one["role"], one["content"]) for one in talk]
        assert tokenize_chat_prompt(messages, ours, 1000).ids.tolist() == expected


@pytest.mark.parametrize("model_type", ["llama", "eurobert"])
def test_a_llama_3_without_tokenizer_json_is_cut_as_with_one(model_type: str, tmp_path: Path, capsys) -> None:
    byte_level(tmp_path, whole=False)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    roles = {"bos_token": "<|begin_of_text|>", "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": GENERIC, **roles}))
    ours = Tokenizer.load(tmp_path)
    assert f"of a {model_type} model are cut as Llama 3 cuts" in capsys.readouterr().err
    # The pattern of Llama 3's own tokenizer.json.
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    model = models.BPE.from_file(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), ignore_merges=True)
    core = tokenizers.Tokenizer(model)
    split = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    core.decoder = decoders.ByteLevel()
    first = ("<|begin_of_text|>", core.token_to_id("<|begin_of_text|>"))
    core.post_processor = processors.TemplateProcessing(single=f"{first[0]} $A", special_tokens=[first])
    core.save(str(tmp_path / "tokenizer.json"))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        assert ours.encode(text, special=True) == theirs(text, add_special_tokens=False)["input_ids"], text
    assert ours.whole(ours.encode("a world")) == theirs("a world")["input_ids"]
