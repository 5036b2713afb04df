"""A watermark shows to who has the key, and to nobody else."""

from __future__ import annotations

import pytest
import torch
from tests.serving import small_model, small_tokenizer

from lucidlm.control.watermark import detect, watermarking
from lucidlm.core.errors import InputError
from lucidlm.inference.config import SamplingConfig
from lucidlm.inference.decode import generate
from lucidlm.inference.logits_processor import MakeProcessors
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer

KEY = "a long secret"


@pytest.fixture(scope="module")
def letters() -> Tokenizer:
    """A token a letter, so that a text is cut as it was written."""
    return Tokenizer.train_characters(["abcdefghijklmnopqrstuvwxyz"])


def test_it_shows_to_who_has_the_key_alone(letters: Tokenizer) -> None:
    torch.manual_seed(0)
    model = LanguageModel(small_model().config.changed(vocab_size=letters.vocab_size)).eval()
    config = SamplingConfig(length=300, temperature=1.0, min_p=0.0)

    def written(processors: MakeProcessors | None) -> str:
        return "".join(one.text for one in generate(model, letters, ["a"] * 8, config, processors=processors))

    marked, plain = written(watermarking(KEY, letters.vocab_size)), written(None)
    found = detect(marked, letters, KEY)
    assert found.pairs > 200
    assert found.p_value < 1e-6
    assert "is there" in found.verdict()
    for text, key in ((marked, "another"), (plain, KEY)):
        other = detect(text, letters, key)
        assert other.p_value > 1e-3
        assert "no watermark" in other.verdict()


def test_green_tokens_get_more_and_the_others_nothing(letters: Tokenizer) -> None:
    (processor,) = watermarking(KEY, 1000, strength=1.5)([3], frozenset())
    logits = torch.zeros(1000)
    processor.process(logits)
    assert set(logits.tolist()) == {0.0, 1.5}
    assert 400 < int((logits > 0).sum()) < 600
    processor.push(4)
    other = torch.zeros(1000)
    processor.process(other)
    assert not torch.equal(logits, other)


def test_chance_finds_it_as_often_as_it_says() -> None:
    """Of many keys on one text a twentieth are below p = 0.05."""
    tokenizer = small_tokenizer()
    text = "the quick brown fox jumps over the lazy dog, and that lazy dog jumps over the quick brown fox; " * 2
    found = [detect(text, tokenizer, f"key {number}").p_value for number in range(400)]
    below = sum(value < 0.05 for value in found)
    assert 5 <= below <= 40


def test_too_short_a_text_and_no_key_are_refused() -> None:
    with pytest.raises(InputError, match="different pairs of tokens"):
        detect("fox", small_tokenizer(), KEY)
    with pytest.raises(InputError, match="an empty key"):
        watermarking("", 300)
