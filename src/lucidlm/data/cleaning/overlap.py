"""Which texts share wording: n-grams kept as hashes, to keep test data out of training and to find it where it got in.

An n-gram is eight words in a row, or thirteen characters where a script separates no words; case and punctuation do not
count (Brown et al. 2020, arXiv:2005.14165, appendix C, clean their training data of their test data this way). Of a
large corpus a fixed share of all possible hashes is kept, the same for every text, so that what two texts share is
estimated without bias (Irber et al. 2022, FracMinHash).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

import numpy as np

from lucidlm.core.errors import InputError
from lucidlm.core.io import atomic_path
from lucidlm.data.scripts import is_unspaced

WORDS, CHARACTERS = 8, 13
SKETCH = "ngrams.npy"
LARGEST = 2**22
"""Hashes kept at most: 32 MB."""

_WORD = re.compile(r"[^\W_]+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def ngram_hashes(text: str) -> np.ndarray:
    """Return the hashes of the n-grams of `text`, uint64, each once, sorted; a shorter text is one n-gram as it is."""
    size = CHARACTERS if is_unspaced(text) else WORDS
    words = _WORD.findall(text.lower())
    units = list("".join(words)) if size == CHARACTERS else words
    if not units:
        return np.zeros(0, dtype=np.uint64)
    hashes = np.array([_hash(unit) for unit in units], dtype=np.uint64)
    size = min(size, len(hashes))
    found = np.zeros(len(hashes) - size + 1, dtype=np.uint64)
    for offset in range(size):
        found = found * _MULTIPLIER + hashes[offset : offset + len(found)]
    found ^= found >> np.uint64(29)  # the product leaves the lowest bits poorer than the highest
    return np.unique(found * _MULTIPLIER)


_cache: dict[str, int] = {}


def _hash(unit: str) -> int:
    if (known := _cache.get(unit)) is None:
        if len(_cache) > 1_000_000:
            _cache.clear()
        known = _cache[unit] = int.from_bytes(blake2b(unit.encode(), digest_size=8).digest(), "big")
    return known


class NgramSketch:
    """The n-grams of many texts, or a fixed share of them.

    Parameters
    ----------
    hashes: uint64, sorted; all those up to `limit` that the texts have.
    limit: the greatest hash that is kept.
    """

    def __init__(self, hashes: np.ndarray, limit: int = 2**64 - 1) -> None:
        self.hashes, self.limit = hashes, limit

    @classmethod
    def of(cls, texts: Iterable[str], largest: int = LARGEST) -> NgramSketch:
        """Sketch `texts`, which are streamed; at most `largest` hashes are kept, the smallest ones."""
        held, pending, waiting, limit = np.zeros(0, dtype=np.uint64), [], 0, 2**64 - 1
        for text in texts:
            found = ngram_hashes(text)
            pending.append(found[found <= np.uint64(limit)])
            waiting += len(pending[-1])
            if waiting > largest:
                held, limit = _merge(held, pending, largest, limit)
                pending, waiting = [], 0
        held, limit = _merge(held, pending, largest, limit)
        return cls(held, limit)

    def shared(self, text: str) -> float:
        """Return the share of the n-grams of `text` that the sketched texts have too; 0 if it has none to compare."""
        found = ngram_hashes(text)
        found = found[found <= np.uint64(self.limit)]
        if not len(found) or not len(self.hashes):
            return 0.0
        at = np.searchsorted(self.hashes, found).clip(max=len(self.hashes) - 1)
        return float((self.hashes[at] == found).mean())

    def save(self, directory: str | Path) -> None:
        """Write the sketch into `directory`, the limit first."""
        with atomic_path(Path(directory) / SKETCH) as path, path.open("wb") as file:
            np.save(file, np.concatenate([np.array([self.limit], dtype=np.uint64), self.hashes]))

    @classmethod
    def load(cls, directory: str | Path) -> NgramSketch:
        """Read the sketch in `directory`.

        Raises
        ------
        InputError: there is none, or it is damaged.
        """
        path = Path(directory) / SKETCH
        try:
            values = np.load(path, allow_pickle=False)
        except FileNotFoundError:
            raise InputError("file not found", where=path, fix="Prepare the data again.") from None
        except (ValueError, OSError, EOFError) as error:
            raise InputError(f"is not a sketch of n-grams ({error})", where=path, fix="Prepare it again.") from None
        if values.dtype != np.uint64 or values.ndim != 1 or not len(values):
            raise InputError("is not a sketch of n-grams", where=path, fix="Prepare the data again.")
        return cls(values[1:], int(values[0]))


def _merge(held: np.ndarray, pending: list[np.ndarray], largest: int, limit: int) -> tuple[np.ndarray, int]:
    merged = np.unique(np.concatenate([held, *pending]))
    return (merged[:largest], int(merged[largest - 1])) if len(merged) > largest else (merged, limit)
