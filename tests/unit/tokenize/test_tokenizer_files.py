"""Tokenizers of other models as they lie on the disk: what is missing or contradicts itself is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import models, pre_tokenizers

from lucidlm.core.errors import InputError
from lucidlm.tokenize.tokenizer import Tokenizer


def two_files(directory: Path, **files: dict[str, Any]) -> None:
    """A byte-level BPE as vocab.json and merges.txt."""
    tokens = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "12", "123", "\u01201"]
    models.BPE({t: i for i, t in enumerate(tokens)}, [("1", "2"), ("12", "3")]).save(str(directory))
    for name, found in files.items():
        (directory / f"{name}.json").write_text(json.dumps(found))


def cut(directory: Path, text: str) -> list[str | None]:
    tokenizer = Tokenizer.load(directory)
    return [tokenizer.core.id_to_token(index) for index in tokenizer.encode(text)]


@pytest.mark.parametrize(
    ("tokenizer_config", "config", "expected"),
    [
        ({"tokenizer_class": "GPT2Tokenizer"}, {}, ["123", "4", "e", "Ì", "ģ"]),
        ({}, {"model_type": "gpt2"}, ["123", "4", "e", "Ì", "ģ"]),
        ({}, {"model_type": "qwen2"}, ["1", "2", "3", "4", "Ã", "©"]),
        ({}, {"tokenizer_class": "Qwen2TokenizerFast"}, ["1", "2", "3", "4", "Ã", "©"]),
        ({"tokenizer_class": "GPT2Tokenizer"}, {"model_type": "qwen3"}, ["123", "4", "e", "Ì", "ģ"]),
        ({"eos_token": "<|endoftext|>"}, {"model_type": "llama"}, ["123", "4", "e", "Ì", "ģ"]),
        ({"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True}, {}, ["Ġ", "123", "4", "e", "Ì", "ģ"]),
    ],
)
def test_two_files_are_cut_as_the_family_cuts(
    tokenizer_config: dict[str, Any], config: dict[str, Any], expected: list[str], tmp_path: Path
) -> None:
    two_files(tmp_path, tokenizer_config=tokenizer_config, config=config)
    assert cut(tmp_path, "1234e\u0301") == expected


@pytest.mark.parametrize("config", [{}, {"model_type": "mine"}, {"tokenizer_class": "OwnTokenizer"}])
def test_two_files_of_an_unknown_family_are_refused(config: dict[str, Any], tmp_path: Path) -> None:
    two_files(tmp_path, config=config)
    with pytest.raises(InputError, match=r"do not say how a text is cut.*Name the class in tokenizer_config\.json"):
        Tokenizer.load(tmp_path)


def test_word_pieces_of_another_class_are_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    assert cut(tmp_path, "A b") == ["a", "[UNK]"]
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertJapaneseTokenizer"}')
    with pytest.raises(InputError, match="BertJapaneseTokenizer does not cut by"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("tokenizer_config", {"added_tokens_decoder": {"x": {"content": "a"}}}),
        ("tokenizer_config", {"added_tokens_decoder": {"300": {}}}),
        ("tokenizer_config", {"additional_special_tokens": [3]}),
        ("added_tokens", {"a": "b", "c": 3}),
    ],
)
def test_added_tokens_of_another_form_are_refused(name: str, found: dict[str, Any], tmp_path: Path) -> None:
    settings = {"tokenizer_config": {"tokenizer_class": "GPT2Tokenizer"}}
    settings.setdefault(name, {}).update(found)
    two_files(tmp_path, **settings)
    with pytest.raises(InputError, match="is not a tokenizer"):
        Tokenizer.load(tmp_path)


def test_a_part_to_play_alone_makes_no_token_where_nobody_says_whose_it_is(tmp_path: Path) -> None:
    Tokenizer.train_bpe(["a b"], 261).save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>", "pad_token": "[nowhere]"}')
    assert Tokenizer.load(tmp_path).vocab_size == 261
    (tmp_path / "added_tokens.json").write_text('{"COVID-19": 261}')
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode("COVID-19") == [261]
