"""Tokenizers in GGUF files: what is written reads back as it was, what llama.cpp would do otherwise is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tests.gguf_models import (
    SPACE,
    TEXT,
    Parts,
    all_merges,
    characters_without_bytes,
    sentence_piece,
    tiny,
    trained_tokenizer,
)
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from lucidlm.core.errors import InputError
from lucidlm.interop.gguf.read import load_gguf
from lucidlm.interop.gguf.write import export_gguf
from lucidlm.interop.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer
from lucidlm.tokenize.byte_level import PIECES
from lucidlm.tokenize.chat_prompts import with_template
from lucidlm.tokenize.tokenizer import Tokenizer

TEXTS = [
    TEXT,
    "",
    "  two  spaces\n\n\tand tabs ",
    "<|endoftext|> is only text",
    "e\u0301 😀 ½ 123456",
    "DON'T I'll they’re",
]


def through(tokenizer: Tokenizer, folder: Path, **fields: Any) -> Tokenizer:
    """Return what comes back of a tokenizer that was exported."""
    path = folder / "model.gguf"
    path.unlink(missing_ok=True)
    export_gguf(tiny(tokenizer, **fields), path, None)
    read = load_gguf(path).tokenizer
    assert read is not None
    return read


def byte_level(pre: pre_tokenizers.PreTokenizer, **options: Any) -> tokenizers.Tokenizer:
    core = tokenizers.Tokenizer(models.BPE(**options))
    core.pre_tokenizer, core.decoder = pre, decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<|endoftext|>", "<s>"], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator([TEXT * 5], trainer)
    return core


# ---------------------------------------------------------------------- there and back


def test_one_trained_here(tmp_path: Path) -> None:
    tokenizer = with_template(trained_tokenizer())
    read = through(tokenizer, tmp_path)
    assert read.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    assert [read.decode(ids) for ids in read.encode_batch(TEXTS)] == TEXTS
    assert read.config["chat_template"] == tokenizer.config["chat_template"]
    assert (read.prefix, read.vocab_size) == ([], tokenizer.vocab_size)
    for role in ("eos_token", "bos_token", "pad_token", "mask_token", "unk_token"):
        assert read.find(role) == tokenizer.find(role)
    assert read.decode([tokenizer.eos_id, *tokenizer.encode("a")]) == "a"
    metadata = Parts(tmp_path / "model.gguf").metadata
    assert metadata["tokenizer.ggml.token_type"][:6].tolist() == [3, 3, 3, 3, 3, 1]
    assert metadata["tokenizer.ggml.add_bos_token"] is False


def test_a_model_with_more_tokens_than_its_tokenizer(tmp_path: Path) -> None:
    tokenizer = trained_tokenizer()
    read = through(tokenizer, tmp_path, vocab_size=310)
    assert read.vocab_size == 310
    assert read.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    assert Parts(tmp_path / "model.gguf").metadata["tokenizer.ggml.token_type"][298:].tolist() == [1, 1, *[5] * 10]


def test_added_tokens_that_the_model_has_no_row_for_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    core = trained_tokenizer().core
    rows = core.get_vocab_size()
    core.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("<b>", special=True)])
    read = through(Tokenizer(core), tmp_path, vocab_size=rows)
    assert "left out tokens that the model has no row for: '<tool>', '<b>'" in capsys.readouterr().err
    assert read.vocab_size == rows
    assert read.encode_batch(TEXTS) == trained_tokenizer().encode_batch(TEXTS)
    assert read.decode(read.encode("<tool> <b>")) == "<tool> <b>"
    ending = Tokenizer(core, {"eos_token": "<b>"})
    with pytest.raises(InputError, match=r"302 tokens, the model 300.*begin, end and pad nothing"):
        through(ending, tmp_path, vocab_size=rows)


@pytest.mark.parametrize("pre", PRE_TOKENIZERS, ids=lambda pre: pre.names[0])
def test_every_way_to_cut_text_keeps_its_name(pre: PreTokenizer, tmp_path: Path) -> None:
    tokenizer = Tokenizer(byte_level(pre.build(), ignore_merges=pre.ignore_merges))
    read = through(tokenizer, tmp_path)
    assert Parts(tmp_path / "model.gguf").metadata["tokenizer.ggml.pre"] == pre.names[0]
    assert read.fingerprint == tokenizer.fingerprint


def test_what_begins_texts_and_what_is_found_in_them(tmp_path: Path) -> None:
    core = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    core.add_tokens([AddedToken("<tool>", normalized=False)])
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = Tokenizer(core, {"eos_token": "<|endoftext|>", "bos_token": {"content": "<s>"}})
    read = through(tokenizer, tmp_path)
    assert read.prefix == tokenizer.prefix == [1]
    ids = read.encode("a <tool> b <s>")
    assert ids == tokenizer.encode("a <tool> b <s>")
    assert core.token_to_id("<tool>") in ids
    assert 1 not in ids


@pytest.mark.parametrize("scheme", [None, "first", "never"])
def test_sentence_piece(scheme: str | None, tmp_path: Path) -> None:
    core = sentence_piece()
    if scheme:
        core.normalizer = None  # type: ignore[assignment]
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = Tokenizer(core, {"eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"})
    read = through(tokenizer, tmp_path)
    texts = ["it is a world", "spaces  of it ", "é 世界", "a\nb"] + [" it"] * (scheme != "first")
    assert read.encode_batch(texts) == tokenizer.encode_batch(texts)
    assert read.prefix == [1]
    metadata = Parts(tmp_path / "model.gguf").metadata
    assert metadata["tokenizer.ggml.add_space_prefix"] is (scheme != "never")
    assert metadata["tokenizer.ggml.token_type"][:4].tolist() == [2, 3, 3, 6]


def test_characters(tmp_path: Path) -> None:
    for corpus in (TEXT, "ASCII only"):
        tokenizer = Tokenizer.train_characters([corpus])
        read = through(tokenizer, tmp_path)
        assert (read.kind, read.unknown_id) == ("characters", None)
        texts = [*TEXTS, "not in it: é世 🧿 <|unk|>"]
        assert read.encode_batch(texts) == tokenizer.encode_batch(texts)
        assert [read.decode(ids) for ids in read.encode_batch(texts)] == texts


def test_characters_without_bytes(tmp_path: Path) -> None:
    tokenizer = characters_without_bytes(TEXT)
    read = through(tokenizer, tmp_path, vocab_size=tokenizer.vocab_size + 3)
    assert read.kind == "characters"
    texts = [TEXT, "", "  the fox\n", "unknown: é世 <|unk|>"]
    assert read.encode_batch(texts) == tokenizer.encode_batch(texts)
    assert read.decode(read.encode(TEXT)) == TEXT
    assert read.unknown_id == tokenizer.unknown_id


# ---------------------------------------------------------------------- what cannot be written


def of_pieces(core: tokenizers.Tokenizer) -> None:
    split = pre_tokenizers.Split(Regex(PIECES.replace("{1,3}", "{1,2}")), "isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])


def lower(core: tokenizers.Tokenizer) -> None:
    core.normalizer = normalizers.Lowercase()


def spaced(core: tokenizers.Tokenizer) -> None:
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def stripping(core: tokenizers.Tokenizer) -> None:
    core.add_tokens([AddedToken("<tool>", lstrip=True)])


def twice(core: tokenizers.Tokenizer) -> None:
    core.post_processor = processors.TemplateProcessing(single="<s> <s> $A", special_tokens=[("<s>", 1)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (of_pieces, "cuts text in a way"),
        (spaced, "cuts text in a way"),
        (lower, "changes text before cutting it"),
        (stripping, "'<tool>' that depends on what is around it"),
        (twice, "puts 2 tokens before a text"),
    ],
)
def test_byte_level_bpe_of_another_kind(
    change: Callable[[tokenizers.Tokenizer], None], message: str, tmp_path: Path
) -> None:
    core = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    change(core)
    with pytest.raises(InputError, match=message):
        through(Tokenizer(core), tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_merges(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no merges"):
        through(Tokenizer.train_bpe([TEXT], 261), tmp_path)


def test_kinds_that_llama_cpp_has_otherwise(tmp_path: Path) -> None:
    pieces = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "[SEP]": 1, "a": 2}, unk_token="[UNK]"))
    with pytest.raises(InputError, match="of the kind wordpiece"):
        through(Tokenizer(pieces), tmp_path)
    with pytest.raises(InputError, match="'▁' or NUL"):
        through(characters_without_bytes(TEXT + SPACE), tmp_path)
    unordered = sentence_piece()
    vocabulary = unordered.get_vocab()
    unordered.model = models.BPE(vocabulary, all_merges(vocabulary)[:-1], unk_token="<unk>", byte_fallback=True)
    with pytest.raises(InputError, match="no scores of tokens"):
        through(Tokenizer(unordered, {"eos_token": "</s>"}), tmp_path)
    stripped = sentence_piece()
    stripped.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.Replace(" ", SPACE)])
    with pytest.raises(InputError, match="changes or cuts text"):
        through(Tokenizer(stripped, {"eos_token": "</s>"}), tmp_path)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- what cannot be read

PREFIX = "tokenizer.ggml."
LIES: dict[str, tuple[dict[str, Any], str]] = {
    "no tokens": ({"tokens": None}, "no tokenizer.ggml.tokens"),
    "tokens, numbers": ({"tokens": np.arange(300)}, "not of the kind"),
    "a token twice": ({"tokens": ["a"] * 300}, "lists a token twice"),
    "a long token": ({"tokens": ["a" * 2000, *map(str, range(299))]}, "2,000 characters"),
    "too few types": ({"token_type": np.ones(299, np.int32)}, "299 elements for 300 tokens"),
    "kind": ({"model": "rwkv"}, "of the kind 'rwkv'"),
    "cuts": ({"pre": "elsewhere"}, "cuts text the way 'elsewhere'"),
    "eos beyond the end": ({"eos_token_id": 300}, "eos_token_id is 300, there are 300 tokens"),
    "no end": ({"eos_token_id": None}, "no token that ends a text"),
    "no merges": ({"merges": None}, "no tokenizer.ggml.merges"),
    "merges of nothing": ({"merges": ["x y"]}, "cannot be built"),
    "unigram": ({"model": "t5"}, "a Unigram tokenizer"),
    "no scores": ({"model": "llama"}, "no tokenizer.ggml.scores"),
    "too many scores": ({"model": "llama", "scores": np.zeros(301, np.float32)}, "301 elements"),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    export_gguf(tiny(trained_tokenizer()), path, None)
    return path


@pytest.mark.parametrize("name", LIES)
def test_tokenizers_that_contradict_themselves(name: str, exported: Path, tmp_path: Path) -> None:
    changes, message = LIES[name]
    parts = Parts(exported)
    for key, value in changes.items():
        parts.metadata[PREFIX + key] = value
        if value is None:
            del parts.metadata[PREFIX + key]
    with pytest.raises(InputError, match=message):
        load_gguf(parts.write(tmp_path / "changed.gguf"))


def test_empty_tokens_are_told_apart(exported: Path, tmp_path: Path) -> None:
    parts = Parts(exported)
    types, tokens = parts.metadata[PREFIX + "token_type"], parts.metadata[PREFIX + "tokens"]
    types[3:5], tokens[3:5] = 5, ["", ""]
    read = load_gguf(parts.write(tmp_path / "changed.gguf")).tokenizer
    assert read is not None
    assert read.core.id_to_token(3) == "[EMPTY_3]"
    assert read.encode_batch(TEXTS) == trained_tokenizer().encode_batch(TEXTS)
