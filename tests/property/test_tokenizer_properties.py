"""What holds for any text: nothing is lost, and streaming says the same as decoding at once."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lucidlm.data.corpus.pack import cut, encode_documents
from lucidlm.tokenize.tokenizer import Tokenizer

TEXTS = st.text(max_size=200) | st.text("ab é中文字，。 \n\t\r'12😀<|>", max_size=200)


@cache
def tokenizer(kind: str) -> Tokenizer:
    texts = ["The cat's 123 mats. 中文字，中文。 abab\n\n" * 3, "ab é中文字，。 \n\t\r'12😀<|>"]
    return Tokenizer.train_bpe(texts, 285) if kind == "bpe" else Tokenizer.train_characters(texts)


@pytest.mark.parametrize("kind", ["bpe", "characters"])
@given(TEXTS)
def test_any_text_comes_back(kind: str, text: str) -> None:
    ids = tokenizer(kind).encode(text)
    assert tokenizer(kind).decode(ids) == text
    assert b"".join(map(tokenizer(kind).token_bytes, ids)) == text.encode()


@given(TEXTS)
def test_no_token_spans_han_and_other_letters(text: str) -> None:
    for i in tokenizer("bpe").encode(text):
        token = tokenizer("bpe").token_bytes(i).decode(errors="ignore")
        assert not (set(token) & set("中文字") and set(token) - set("中文字"))


@pytest.mark.parametrize("kind", ["bpe", "characters"])
@given(data=st.data())
def test_streaming_says_what_decoding_says(kind: str, data: st.DataObject) -> None:
    subject = tokenizer(kind)
    ids = data.draw(st.lists(st.integers(0, subject.vocab_size - 1), max_size=30))
    stream = subject.stream_decoder()
    assert "".join(map(stream.push, ids)) + stream.flush() == subject.decode(ids)


@given(TEXTS, st.integers(1, 50))
def test_cutting_loses_nothing(text: str, size: int) -> None:
    pieces = list(cut(text, size))
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= size


@given(st.lists(st.sampled_from(["cat's", " mats", "\n", "中文", "，", "。\n\n", " 12", ". ", "é"]), max_size=60))
def test_cut_texts_have_the_ids_of_whole_ones(words: list[str]) -> None:
    text = "".join(words) + " end" * 20
    pieces = list(cut(text, 64))
    ids = [i for piece in pieces for i in tokenizer("bpe").encode(piece)]
    assert ids == tokenizer("bpe").encode(text)


@given(st.lists(TEXTS, max_size=5))
def test_documents_end_with_the_end_token(texts: list[str]) -> None:
    subject = tokenizer("bpe")
    expected = [subject.encode(text, add_eos=True) for text in texts]
    assert [ids.tolist() for ids in encode_documents(subject, texts, np.dtype("<u2"))] == expected
