"""Which texts share wording: n-grams kept as hashes, to keep test data out of training and to find it where it got in.

An n-gram is eight words in a row, or thirteen characters where a script separates no words; case and punctuation do not
count (Brown et al. 2020, arXiv:2005.14165, appendix C, clean their training data of their test data this way). Of a
large corpus a fixed share of all possible hashes is kept, the same for every text, so that what two texts share is
estimated without bias (Irber et al. 2022, FracMinHash).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import chain
from pathlib import Path

import numpy as np

from lucidlm.core.errors import InputError
from lucidlm.core.io import atomic_path
from lucidlm.core.parallel import in_chunks, map_in_order
from lucidlm.data.scripts import is_unspaced

WORDS, CHARACTERS = 8, 13
SKETCH = "ngrams.npy"
LARGEST = 2**22
"""Hashes kept at most: 32 MB."""
CHUNK_CHARACTERS = 200_000
"""Characters of texts that are taken at once."""
MOST_UNITS = 250_000
"""Words whose hashes are kept, some 150 bytes each."""

_WORD = re.compile(r"[^\W_]+")
_SPACED = bytes(code if chr(code).isalnum() else 32 for code in range(128)).ljust(256)
"""ASCII with spaces for what is in no `_WORD`: many times faster than the regular expression, and most English is ASCII."""
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def ngram_hashes(*texts: str) -> np.ndarray:
    """Return the hashes of the n-grams of the texts, uint64, each once, sorted; a shorter text is one n-gram as it is.

    Many short texts at once are several times faster than one after the other.
    """
    found = [np.zeros(0, dtype=np.uint64)]
    by_size: defaultdict[int, list[Sequence[str]]] = defaultdict(list)
    for text in texts:
        if units := _units(text):
            by_size[min(CHARACTERS if isinstance(units, str) else WORDS, len(units))].append(units)
    for size, parts in by_size.items():
        hashes = np.fromiter(map(_hashes.__getitem__, chain.from_iterable(parts)), np.uint64)
        runs = np.zeros(len(hashes) - size + 1, dtype=np.uint64)
        for offset in range(size):
            runs *= _MULTIPLIER
            runs += hashes[offset : offset + len(runs)]
        owner = np.repeat(np.arange(len(parts)), list(map(len, parts)))
        runs = runs[owner[: len(runs)] == owner[size - 1 :]]  # an n-gram stands in one text
        runs ^= runs >> np.uint64(29)  # the product leaves the lowest bits poorer than the highest
        found.append(runs * _MULTIPLIER)
    return _distinct(np.concatenate(found))


def _hashes_of(texts: list[str]) -> np.ndarray:
    return ngram_hashes(*texts)


def _units(text: str) -> Sequence[str]:
    """Return the words of `text`, or, where its script separates none, its characters in one string."""
    lower = text.lower()
    words = lower.encode().translate(_SPACED).decode().split() if lower.isascii() else _WORD.findall(lower)
    return "".join(words) if is_unspaced(text) else words


class _Hashes(dict[str, int]):
    """The hash of each word or character; those met lately are kept."""

    def __missing__(self, unit: str) -> int:
        if len(self) > MOST_UNITS:
            self.clear()
        found = self[unit] = int.from_bytes(blake2b(unit.encode(), digest_size=8).digest(), "big")
        return found


_hashes = _Hashes()


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
    def of(cls, texts: Iterable[str], largest: int = LARGEST, *, processes: int = 1) -> NgramSketch:
        """Sketch `texts`, which are streamed; at most `largest` hashes are kept, the smallest ones."""
        held, pending, waiting, limit = np.zeros(0, dtype=np.uint64), [], 0, 2**64 - 1
        chunks = in_chunks(texts, len, CHUNK_CHARACTERS)
        for found in map_in_order(_hashes_of, chunks, processes):
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
    merged = _distinct(np.concatenate([held, *pending]))
    return (merged[:largest], int(merged[largest - 1])) if len(merged) > largest else (merged, limit)


def _distinct(values: np.ndarray) -> np.ndarray:
    """Return what `np.unique` does, which from NumPy 2.3 on goes by a hash table and is several times slower here."""
    values = np.sort(values)
    return values[np.diff(values, prepend=~values[:1]) != 0]
