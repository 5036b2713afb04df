"""A saved tokenizer opened by `transformers` gives the same ids."""

from __future__ import annotations

import pytest

from lucidlm.data.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers", reason="needs the [hf] extra")

TEXTS = ["Hello, world!\n\nIt's 12345 o'clock.", "  spaces   and\ttabs ", "春眠不觉晓，abc处处闻啼鸟。", "😀 é"]


@pytest.mark.parametrize("kind", ["bpe", "characters"])
def test_transformers_gives_the_same_ids(kind: str, tmp_path) -> None:
    tokenizer = Tokenizer.train_bpe(TEXTS * 3, 280) if kind == "bpe" else Tokenizer.train_characters(TEXTS)
    tokenizer.save(tmp_path)
    other = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert [other(text)["input_ids"] for text in TEXTS] == tokenizer.encode_batch(TEXTS)
    assert [other.decode(ids) for ids in tokenizer.encode_batch(TEXTS)] == TEXTS
    assert (other.bos_token_id, other.eos_token_id) == (tokenizer.eos_id, tokenizer.eos_id)
    assert (other.pad_token_id, other.mask_token_id) == (tokenizer.pad_id, tokenizer.mask_id)
    assert len(other) == tokenizer.vocab_size
