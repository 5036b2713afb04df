"""Deduplication: copies found, similar texts told apart, the temporary file gone, the estimate right."""

from __future__ import annotations

import random

import numpy as np
import pytest

from lucidlm.data.cleaning import dedup as module
from lucidlm.data.cleaning.dedup import PERMUTATIONS, Deduplicator, bands_and_rows, fingerprints, minhash


def words(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [f"word{draw.randrange(100_000)}" for _ in range(count)]


def are_new(dedup: Deduplicator, *texts: str) -> list[bool]:
    return [dedup.is_new(fingerprint) for fingerprint in fingerprints(texts, dedup.near)]


def test_exact_copies_are_found_whatever_their_white_space():
    with Deduplicator() as dedup:
        assert are_new(dedup, "a b", "a c", "a  b\n", "A b", "a b") == [True, True, False, True, False]
        assert dedup.counts == {"exact duplicates": 2}


def test_the_temporary_file_goes(tmp_path):
    with Deduplicator(near=0.8, directory=tmp_path) as dedup:
        assert are_new(dedup, "text") == [True]
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_near_copies_are_found_and_different_texts_kept():
    base = words(400, 1)
    nearly = base.copy()
    nearly[200] = "changed"  # 5 of 396 shingles: Jaccard 0.975
    half = base[:200] + words(200, 2)  # Jaccard 0.33
    with Deduplicator(near=0.8) as dedup:
        assert are_new(dedup, " ".join(base), " ".join(nearly), " ".join(half)) == [True, False, True]
        assert dedup.counts == {"exact duplicates": 0, "near duplicates": 1}


def test_near_copies_are_found_in_chinese():
    draw = random.Random(3)
    characters = [chr(draw.randrange(0x4E00, 0x9000)) for _ in range(600)]
    nearly = characters.copy()
    nearly[300] = "换"
    other = characters[:300] + [chr(draw.randrange(0x4E00, 0x9000)) for _ in range(300)]
    with Deduplicator(near=0.8) as dedup:
        assert are_new(dedup, "".join(characters), "".join(nearly), "".join(other)) == [True, False, True]


def test_copies_are_found_in_memory_and_in_the_table_alike(monkeypatch):
    """A long text, one that shares a third of its shingles with each of several others, and copies of all of them."""
    base = words(300, 4)
    texts = [" ".join(base[:150] + words(150, 10 + number)) for number in range(12)]
    texts += [text.replace("word", "WORD", 1) for text in texts] + [" ".join([*base[:150], "new", *words(150, 20)])]
    with Deduplicator(near=0.8) as in_memory:
        expected = are_new(in_memory, *texts)
    assert expected == [True] * 12 + [False] * 13
    monkeypatch.setattr(module, "RECENT_KEYS", 50)  # some three texts
    with Deduplicator(near=0.8) as in_table:
        assert are_new(in_table, *texts) == expected


def test_short_texts_are_near_copies_only_of_themselves():
    with Deduplicator(exact=False, near=0.8) as dedup:
        assert are_new(dedup, "yes", "no", "yes", "好", "不好") == [True, True, False, True, True]


@pytest.mark.parametrize("similarity", [0.5, 0.8, 0.95])
def test_signatures_estimate_the_similarity(similarity):
    """The mean over planted pairs lies within four standard errors of their Jaccard similarity."""
    pairs, shingles, estimates = 40, 400, []
    shared = round(2 * shingles * similarity / (1 + similarity))
    true = shared / (2 * shingles - shared)
    for pair in range(pairs):
        # A text of 5-word shingles whose first `shared` are common to both: the texts part after a common start.
        start, ends = (
            words(shared + 4, 10 * pair),
            (words(shingles - shared, 10 * pair + 1), words(shingles - shared, 10 * pair + 2)),
        )
        one, two = (minhash(" ".join(start + end)) for end in ends)
        estimates.append(np.mean(one == two))
    assert abs(np.mean(estimates) - true) < 4 * np.sqrt(true * (1 - true) / PERMUTATIONS / pairs)


def test_bands_find_pairs_at_the_threshold():
    bands, rows = bands_and_rows(0.8)
    assert bands * rows <= PERMUTATIONS
    assert 1 - (1 - 0.8**rows) ** bands >= 0.99
    assert 1 - (1 - 0.3**rows) ** bands < 0.05


def test_a_threshold_out_of_range_is_refused():
    with pytest.raises(ValueError, match="near"):
        Deduplicator(near=1.5)
