"""Shared wording is found however it is cased and punctuated, and estimated where only a share of it is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lucidlm.core.errors import InputError
from lucidlm.data.cleaning.overlap import SKETCH, NgramSketch, ngram_hashes
from lucidlm.data.corpus.prepare import PrepareConfig, prepare

ENGLISH = "The quick brown fox jumps over the lazy dog while nine tired cats watch from a warm wall."
CHINESE = "春天来了，公园里的花都开了，孩子们在草地上放风筝，老人们在树下下棋聊天。"


@pytest.mark.parametrize(("text", "units"), [(ENGLISH, 18), (CHINESE, 32)])
def test_a_text_has_an_ngram_for_each_place(text: str, units: int) -> None:
    size = 8 if text is ENGLISH else 13
    assert len(ngram_hashes(text)) == units - size + 1


def test_case_and_punctuation_do_not_count() -> None:
    altered = ENGLISH.upper().replace(" ", " - ").replace(".", "!?")
    assert np.array_equal(ngram_hashes(ENGLISH), ngram_hashes(altered))


def test_a_short_text_is_found_only_whole() -> None:
    sketch = NgramSketch.of(["hello world", ENGLISH])
    assert sketch.shared("Hello, world!") == 1
    assert sketch.shared("hello there") == 0
    assert sketch.shared("") == 0


def test_the_share_of_common_wording() -> None:
    sketch = NgramSketch.of([ENGLISH])
    assert sketch.shared(ENGLISH) == 1
    assert sketch.shared("Nothing of this sentence stands in the other one, not even eight words.") == 0
    half = " ".join(ENGLISH.split()[:12]) + " and then something else entirely happened that nobody had expected at all"
    assert 0 < sketch.shared(half) < 0.5


def test_a_share_of_the_hashes_estimates_without_bias() -> None:
    generator = np.random.default_rng(0)
    words = [f"w{number}" for number in range(3000)]
    known = " ".join(generator.choice(words, 20_000))
    other = " ".join(generator.choice(words, 20_000))
    sketch = NgramSketch.of([known], largest=4000)
    assert len(sketch.hashes) == 4000
    assert sketch.limit < 2**64 - 1
    assert sketch.shared(f"{known} {other}") == pytest.approx(0.5, abs=0.03)
    assert sketch.shared(known) == 1
    assert sketch.shared(other) == 0


def test_pieces_give_what_the_whole_gives() -> None:
    texts = [f"{ENGLISH} {number} {number * 7} {ENGLISH[::-1]}" for number in range(50)]
    whole, pieces = NgramSketch.of(texts, largest=200), NgramSketch.of(iter(texts), largest=200)
    assert np.array_equal(whole.hashes, pieces.hashes)
    everything = np.unique(np.concatenate([ngram_hashes(text) for text in texts]))
    assert np.array_equal(whole.hashes, everything[:200])


def test_saved_and_loaded(tmp_path: Path) -> None:
    sketch = NgramSketch.of([ENGLISH, CHINESE], largest=10)
    sketch.save(tmp_path)
    loaded = NgramSketch.load(tmp_path)
    assert np.array_equal(loaded.hashes, sketch.hashes)
    assert loaded.limit == sketch.limit


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x93NUMPY\x01\x00"])
def test_a_damaged_sketch_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / SKETCH).write_bytes(content)
    with pytest.raises(InputError, match="not a sketch"):
        NgramSketch.load(tmp_path)


def test_excluded_texts_stay_out_of_training_data(tmp_path: Path) -> None:
    fillers = [
        f"Filler number {n} says that {n * n} is the square of {n}, and nothing else of note." for n in range(200)
    ]
    (tmp_path / "corpus.txt").mkdir()
    for number, text in enumerate([*fillers, f"Someone wrote: {ENGLISH.lower()} How nice."]):
        (tmp_path / "corpus.txt" / f"{number:03}.txt").write_text(text, encoding="utf-8")
    (tmp_path / "test.jsonl").write_text(f'{{"question": "{ENGLISH}"}}\n', encoding="utf-8")
    config = PrepareConfig(
        sources=[str(tmp_path / "corpus.txt")],
        exclude={str(tmp_path / "test.jsonl"): "question"},
        tokenizer="characters",
        near="off",
    )
    card = prepare(config, tmp_path / "data")
    excluded = next(step for step in card.steps if step.name == "exclude")
    assert (excluded.documents_in, excluded.documents_out) == (201, 200)
    sketch = NgramSketch.load(tmp_path / "data")
    assert sketch.shared(ENGLISH) == 0
    assert np.mean([sketch.shared(text) == 1 for text in fillers]) == pytest.approx(0.9, abs=0.05)  # the training part
