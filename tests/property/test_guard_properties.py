"""What holds for any text that a guard watches: nothing is told of it that has not passed, however it is cut into tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.guards import WordGuard
from tests.serving import small_tokenizer
from torch import Tensor

from lucidlm.core.errors import LucidError
from lucidlm.inference.config import SamplingConfig
from lucidlm.inference.engine.backend import Stretch
from lucidlm.inference.engine.engine import Engine
from lucidlm.inference.guard import STRETCH, stretch_end
from lucidlm.inference.sampler import Sampler
from lucidlm.inference.sequence import SequenceState, start_rows
from lucidlm.model.config import ModelConfig

TOKENIZER = small_tokenizer()
MODEL = ModelConfig(vocab_size=290, embedding_dim=32, num_heads=2, ff_dim=32, num_layers=1, context_length=512)
WORDS = [
    "the ",
    "quick",
    " brown",
    "fox",
    ". ",
    "! ",
    "?",
    "\n",
    "坏话",
    "今天",
    "。",
    "，",
    "é",
    "😀",
    " bad",
    "ger",
    "3.5",
]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=40).map("".join)


class Script:
    """A backend that says one text, whatever it reads; its bytes are tokens, or it is cut as the tokenizer does."""

    block_size, blocks, has_own_threads = 16, 64, False

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = [*tokens, TOKENIZER.eos_id]

    def read(self, stretches: Sequence[Stretch]) -> Tensor:
        places = [
            stretch.start + len(stretch.tokens) - stretch.wanted + number
            for stretch in stretches
            for number in range(stretch.wanted)
        ]
        wanted = [self._tokens[min(place, len(self._tokens) - 1)] for place in places]
        return torch.nn.functional.one_hot(torch.tensor(wanted), MODEL.vocab_size).float()


def tokens_of(text: str, by_bytes: bool) -> list[int]:
    return [one for byte in text.encode() for one in cut_of(byte)] if by_bytes else TOKENIZER.encode(text)


@cache
def cut_of(byte: int) -> list[int]:
    return [index for index in range(TOKENIZER.vocab_size) if TOKENIZER.token_bytes(index) == bytes([byte])][:1]


def written(tokens: Sequence[int], guard: WordGuard | None, config: SamplingConfig) -> tuple[SequenceState, list[str]]:
    """Let a text be written, and check at each step that what is told of it has passed; return it and its pieces."""
    engine = Engine(Script(tokens), Sampler(MODEL.vocab_size, TOKENIZER), guard=guard)
    (row,) = start_rows(MODEL, TOKENIZER, [[5]], config)
    engine.add(row)
    pieces = [""]
    while row.reason is None:
        engine.step()
        pieces.append(row.take())
        if guard is not None:
            told = "".join(pieces)
            assert told in ("", *guard.passed)
            assert row.text == told
            tokens_told = row.tokens[: row.released_tokens]
            assert row.reason is not None or told.startswith(TOKENIZER.decode(tokens_told))
    return row, pieces


@settings(deadline=None)
@given(
    text=TEXTS,
    by_bytes=st.booleans(),
    word=st.sampled_from(["bad", "坏话", "fox", "3.5", "😀", ". t", "\0"]),
    stop=st.sampled_from([(), ("quick",), ("今", ". the")]),
    length=st.sampled_from([7, 60, 400]),
)
@example(text="fox. the bad", by_bytes=False, word="bad", stop=(". the",), length=60)
@example(text="fox. the bad", by_bytes=True, word="bad", stop=(". the",), length=60)
def test_nothing_is_told_that_has_not_passed(
    text: str, by_bytes: bool, word: str, stop: tuple[str, ...], length: int
) -> None:
    config = SamplingConfig(temperature=0, length=length, stop=stop, logprobs=0)
    tokens = tokens_of(text, by_bytes)
    free, guard = written(tokens, None, config)[0].generation(), WordGuard(word)
    row, pieces = written(tokens, guard, config)
    found = row.generation()
    assert "".join(pieces) == found.text
    assert word not in found.text
    if word in free.text:
        assert found.reason == "guarded"
        assert free.text.startswith(found.text)
        assert found.tokens == free.tokens[: len(found.tokens)]
        assert len(found.likelihoods) == len(found.tokens)
        assert found.text.startswith(TOKENIZER.decode(found.tokens))
    else:
        assert found == free


@pytest.mark.parametrize("before", range(8))
def test_a_token_that_is_told_in_part_is_not_told(before: int) -> None:
    tokens = TOKENIZER.encode("q" * before + " brown fox" * 20)
    row, _ = written(tokens, WordGuard("\n"), SamplingConfig(temperature=0, length=400))
    assert row.reason == "eos"


@settings(deadline=None)
@given(text=TEXTS, by_bytes=st.booleans())
def test_a_guard_that_fails_lets_nothing_through(text: str, by_bytes: bool) -> None:
    row, pieces = written(tokens_of(text, by_bytes), WordGuard("\0", failing="fox"), SamplingConfig(temperature=0))
    assert "fox" not in "".join(pieces)
    if "fox" in text and len(row.tokens) < 100:
        assert row.reason == "failed"
        assert isinstance(row.failure, LucidError)


@settings(deadline=None)
@given(text=TEXTS, tokens=st.integers(0, 3 * STRETCH))
def test_what_is_judged_is_a_part_with_something_in_it_and_is_not_put_off_for_long(text: str, tokens: int) -> None:
    end = stretch_end(text, tokens)
    if end is None:
        assert tokens < STRETCH or not text.strip()
    else:
        assert text[:end].strip()
        assert end <= len(text)


@pytest.mark.parametrize(
    ("text", "tokens", "judged"),
    [
        ("One more. And", 3, "One more."),
        ('He said "No!" And', 3, 'He said "No!"'),
        ("It costs 3.5", 3, None),
        ("It ends.", 3, None),
        ("今天很好。明", 3, "今天很好。"),
        ("今天很好", 3, None),
        ("\n", 3, None),
        ("one\ntwo", 3, "one\n"),
        ("a word that is a bad", STRETCH, "a word that is a "),
        ("今天坏", STRETCH, "今天坏"),
        ("https", STRETCH, "https"),
        ("  ", STRETCH, None),
    ],
)
def test_where_a_text_is_judged(text: str, tokens: int, judged: str | None) -> None:
    end = stretch_end(text, tokens)
    assert (None if end is None else text[:end]) == judged
