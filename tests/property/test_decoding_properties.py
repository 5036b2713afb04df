"""What holds for any ids: decoding never fails, and what arrives piece by piece is what decoding at once gives."""

from __future__ import annotations

from functools import cache

import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from lucidlm.tokenize.tokenizer import Tokenizer

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
KINDS = (
    "bpe",
    "characters",
    "llama",
    "gemma",
    "wordpiece",
    "wordpiece cleaned",
    "unigram",
    "unigram cleaned",
    "bytes only",
)


def characters_of(tokens: list[str]) -> dict[str, int]:
    return {token: index for index, token in enumerate(tokens)}


@cache
def tokenizer(kind: str) -> Tokenizer:
    config = {"eos_token": "</s>", "unk_token": "<unk>", "clean_up_tokenization_spaces": kind.endswith("cleaned")}
    if kind in ("bpe", "characters"):
        texts = ["The cat's 123 mats. 中文字，é😀\n\n" * 3]
        made = Tokenizer.train_bpe(texts, 285) if kind == "bpe" else Tokenizer.train_characters(texts)
        made.core.add_tokens([AddedToken("café"), AddedToken("Ġ x"), AddedToken("中文")])
        return Tokenizer(made.core, made.config)
    if kind.startswith("wordpiece"):
        words = [".", "?", ",", "'", "'s", "n", "##n", "##'", "t", "s", "ve", "##ve", "r", "v", "do", "not", "##e", "é"]
        core = tokenizers.Tokenizer(models.WordPiece(characters_of(["<unk>", "</s>", *words]), unk_token="<unk>"))
        core.decoder = decoders.WordPiece()
    elif kind.startswith("unigram"):
        pieces = [".", "?", "'", "▁'", "▁n", "'t", "▁", "▁.", "v", "e", "▁'v", "n't", "m", "▁a", "中", "▁▁", "r"]
        core = tokenizers.Tokenizer(models.Unigram([(piece, 0.0) for piece in ["<unk>", "</s>", *pieces]], 0))
        core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    else:
        pieces = [] if kind == "bytes only" else ["▁", "▁the", "a", "中", "▁▁", "\ufffd", "\n"]
        vocabulary = characters_of(["<unk>", "</s>", "<s>", *BYTES, *pieces])
        core = tokenizers.Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
        core.normalizer = normalizers.Replace(" ", "▁")
        strip = [] if kind == "gemma" else [decoders.Strip(" ", 1, 0)]
        core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    core.add_special_tokens(["<unk>", "</s>"])
    core.add_tokens([AddedToken("café"), AddedToken("x y")])
    return Tokenizer(core, config)


IDS = st.lists(st.integers(0, 340), max_size=12)
CHINESE = [3 + byte for byte in "中文".encode()]


@pytest.mark.parametrize("kind", KINDS)
@given(ids=IDS, before=IDS)
@example(ids=[3 + 0xE4, 260, 260], before=[])
@example(ids=[*CHINESE, 3 + 0xE4, 1, 3 + 0xB8, 3 + 0xAD, 260], before=[259])
@example(ids=[10_000, 0, 1], before=[10_000])
def test_pieces_joined_are_what_decoding_at_once_gives(kind: str, ids: list[int], before: list[int]) -> None:
    subject = tokenizer(kind)
    stream = subject.stream_decoder()
    assert "".join(map(stream.push, ids)) + stream.flush() == subject.decode(ids)
    # Behind something else too, if that is no part of a character, and nothing that cleaning up reaches back to.
    before = [index for index in before if not subject.is_byte(index)]
    told = subject.decode(before)
    if "\ufffd" not in told and not subject.cleans and not subject.byte_level:
        stream = subject.stream_decoder(before)
        assert told + "".join(map(stream.push, ids)) + stream.flush() == subject.decode([*before, *ids])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("bpe", "characters")])
@given(ids=IDS)
def test_decoding_is_what_tokenizers_does(kind: str, ids: list[int]) -> None:
    subject = tokenizer(kind)
    assert subject.read_out(ids) == subject.core.decode(ids, skip_special_tokens=True)
    assert subject.read_out(ids, skip_special=False) == subject.core.decode(ids, skip_special_tokens=False)


@given(ids=IDS)
def test_byte_level_texts_are_those_of_tokenizers(ids: list[int]) -> None:
    subject = tokenizer("bpe")
    ids = [index for index in ids if index not in subject.core.get_added_tokens_decoder()]
    assert subject.decode(ids) == subject.core.decode(ids)


def test_added_words_come_out_as_they_went_in() -> None:
    for kind in ("bpe", "characters"):
        subject = tokenizer(kind)
        ids = subject.encode("The café 中文")
        assert subject.core.token_to_id("café") in ids
        assert subject.decode(ids) == "The café 中文"
        stream = subject.stream_decoder()
        assert "".join(map(stream.push, ids)) + stream.flush() == "The café 中文"


def test_what_is_certain_is_not_held_back() -> None:
    llama = tokenizer("llama")
    the, a = (llama.core.get_vocab()[token] for token in ("▁the", "a"))
    stream = llama.stream_decoder()
    assert [stream.push(index) for index in (the, *CHINESE[:3], the, a)] == ["the", "", "", "", "中 the", "a"]
    assert stream.flush() == ""
    assert [stream.push(index) for index in (CHINESE[0], the)] == ["", "\ufffd the"]
    cleaned = tokenizer("wordpiece cleaned")
    stream = cleaned.stream_decoder()
    words = [cleaned.core.get_vocab()[token] for token in ("do", "not", ".", "n", "'", "t")]
    assert [stream.push(index) for index in words] == ["do", " not", ".", "", "", "n't"]
    assert stream.flush() == ""
