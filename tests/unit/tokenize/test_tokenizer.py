"""Training, saving and using tokenizers."""

from __future__ import annotations

import json

import pytest
from tests.gguf_models import characters_without_bytes

from lucidlm.core.errors import InputError
from lucidlm.tokenize.tokenizer import CONTROL, SMALLEST_BPE, Tokenizer

ENGLISH = ["The quick brown fox jumps over the lazy dog. It's 12345 o'clock, isn't it?\n\n\tYes.\n"] * 4
CHINESE = ["春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。"] * 4


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [text[start:end] for _, (start, end) in tokenizer.core.pre_tokenizer.pre_tokenize_str(text)]


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return Tokenizer.train_bpe([*ENGLISH, *CHINESE], 300)


@pytest.fixture(scope="module")
def characters() -> Tokenizer:
    return Tokenizer.train_characters(["hello world"])


def test_control_tokens_come_first(bpe: Tokenizer, characters: Tokenizer) -> None:
    for tokenizer in (bpe, characters):
        assert [tokenizer.core.id_to_token(i) for i in range(5)] == list(CONTROL)
        assert (tokenizer.eos_id, tokenizer.pad_id, tokenizer.mask_id) == (0, 1, 2)


def test_control_tokens_in_a_text_are_only_text(bpe: Tokenizer, characters: Tokenizer, tmp_path) -> None:
    text = "a document that says <|endoftext|> and <|pad|>"
    bpe.save(tmp_path)
    for tokenizer in (bpe, Tokenizer.load(tmp_path)):
        ids = tokenizer.encode(text)
        assert not set(ids) & set(range(5))
        assert tokenizer.encode_batch([text]) == [ids]
        assert tokenizer.decode(ids) == text
    assert not set(characters.encode(text)) & set(range(5))


def test_eos_is_added_on_request_and_left_out_when_decoding(bpe: Tokenizer) -> None:
    ids = bpe.encode("Yes.", add_eos=True)
    assert ids == [*bpe.encode("Yes."), bpe.eos_id]
    assert bpe.decode(ids) == "Yes."
    assert bpe.decode(ids, skip_special=False) == "Yes.<|endoftext|>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's fine, don't", ["It", "'s", " fine", ",", " don", "'t"]),
        ("1234567 x2", ["123", "456", "7", " x", "2"]),
        ("Python很好abc用", ["Python", "很好", "abc", "用"]),
        ("晓，处", ["晓", "，", "处"]),
        ("end.\n\n  next", ["end", ".\n\n", " ", " next"]),
        ("e\u0301 naïve", ["e\u0301", " naïve"]),
    ],
)
def test_pieces_keep_words_digits_and_scripts_apart(bpe: Tokenizer, text: str, expected: list[str]) -> None:
    assert pieces(bpe, text) == expected


def test_training_is_deterministic(bpe: Tokenizer) -> None:
    again = Tokenizer.train_bpe(iter([*ENGLISH, *CHINESE]), 300)
    assert again.fingerprint == bpe.fingerprint
    assert Tokenizer.train_bpe(ENGLISH, 270).fingerprint != bpe.fingerprint


def test_a_vocabulary_the_data_does_not_support_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"--vocab-size: a vocabulary of 5,000 is more than the data supports"
    ) as error:
        Tokenizer.train_bpe(["abc abc abd"], 5000)
    reached = int(str(error.value).split("reaches ")[1].split(".")[0])
    assert Tokenizer.train_bpe(["abc abc abd"], reached).vocab_size == reached
    assert Tokenizer.train_bpe(["abc abc abd"], 5000, exact=False).vocab_size == reached


def test_a_vocabulary_below_the_bytes_is_refused() -> None:
    with pytest.raises(InputError, match=f"at least {SMALLEST_BPE} tokens, not 100"):
        Tokenizer.train_bpe(ENGLISH, 100)


def test_characters_are_tokens_and_any_other_is_spelt_in_bytes(characters: Tokenizer) -> None:
    assert characters.vocab_size == SMALLEST_BPE + 2  # the replacement character: its first two bytes, and all three
    known = Tokenizer.train_characters(["hé 世界 🙂"])
    assert [len(known.encode(text)) for text in ("é", "世界", "🙂", "hé 世界 🙂")] == [1, 2, 1, 7]
    for text in ("hex", "🧿", "世万", "e\u0301", "\ufffd", "\0"):
        for tokenizer in (characters, known):
            assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(characters.encode("🧿")) == 4
    assert characters.unknown_id is None


def test_characters_once_had_no_bytes(tmp_path) -> None:
    characters_without_bytes("hello world").save(tmp_path)
    old = Tokenizer.load(tmp_path)
    ids = old.encode("hex")
    assert (old.kind, ids[-1], old.decode(ids)) == ("characters", old.unknown_id, "he")
    stream = old.stream_decoder()
    assert "".join(map(stream.push, ids)) + stream.flush() == "he"


def test_no_text_no_characters() -> None:
    with pytest.raises(InputError, match="no text"):
        Tokenizer.train_characters([])


@pytest.mark.parametrize("kind", ["bpe", "characters"])
def test_saved_and_loaded_is_the_same(kind: str, request, tmp_path) -> None:
    tokenizer = request.getfixturevalue(kind)
    tokenizer.save(tmp_path)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = Tokenizer.load(path)
        assert (loaded.kind, loaded.fingerprint, loaded.config) == (kind, tokenizer.fingerprint, tokenizer.config)
        assert loaded.encode("hello") == tokenizer.encode("hello")


def test_a_chat_template_survives(bpe: Tokenizer, tmp_path) -> None:
    bpe.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": "{{ x }}"}))
    Tokenizer.load(tmp_path).save(tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again").config["chat_template"] == "{{ x }}"


def test_what_is_no_tokenizer_is_refused(tmp_path) -> None:
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "tokenizer.json"):
        with pytest.raises(InputError, match=f"{path.name}: no tokenizer is here"):
            Tokenizer.load(path)
    (tmp_path / "tokenizer.json").write_text("{ not json")
    with pytest.raises(InputError, match="is not a tokenizer"):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_without_an_end_is_refused(bpe: Tokenizer, tmp_path) -> None:
    bpe.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    with pytest.raises(InputError, match="no token that ends a document"):
        Tokenizer.load(tmp_path)


def test_a_token_that_is_not_there_is_named(bpe: Tokenizer, tmp_path) -> None:
    bpe.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>", "mask_token": "[MASK]"}))
    with pytest.raises(InputError, match=r"field mask_token: the tokenizer has no token '\[MASK\]'"):
        _ = Tokenizer.load(tmp_path).mask_id


def test_streaming_holds_back_incomplete_characters(bpe: Tokenizer) -> None:
    stream = bpe.stream_decoder()
    ids = bpe.encode("🙂")
    parts = [stream.push(i) for i in ids]
    assert parts == [""] * (len(ids) - 1) + ["🙂"]
    assert stream.flush() == ""
    assert stream.push(ids[0]) == ""
    assert stream.flush() == "\ufffd"


def test_token_bytes_of_a_token_that_is_not_there(bpe: Tokenizer) -> None:
    with pytest.raises(ValueError, match="no token 999"):
        bpe.token_bytes(999)
