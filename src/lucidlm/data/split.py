"""Which part of the data a text belongs to, told from the text alone, or from the text and its label."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Literal

from lucidlm.data.scripts import one_line

Split = Literal["train", "validation", "test"]

Bounds = dict[str, tuple[float, float]]
"""For each label, below which place (see `place_of`) a text is for test, and below which for validation or test."""


def split_of(text: str, validation: float = 0.05, test: float = 0.05) -> Split:
    """Return the split that `text` falls into: a share of `test`, one of `validation`, and the rest for training.

    Its `place_of` decides. So the same text falls into the same split wherever it is met: what fine-tuning tests by was
    not pretrained on, given the same shares. Raising `validation` moves texts out of training only; those of the test
    split stay.
    """
    return split_at(place_of(text), test, test + validation)


def place_of(text: str) -> float:
    """Return a number from 0 to 1, by the BLAKE2b hash of `text`; any white space is one space, as in finding copies."""
    digest = hashlib.blake2b(one_line(text).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def split_at(place: float, tested: float, held_out: float) -> Split:
    """Return the split of a text at `place`: those below `tested` are for test, those below `held_out` for validation."""
    if place < tested:
        return "test"
    return "validation" if place < held_out else "train"


def stratified_bounds(places: Mapping[str, Sequence[float]], validation: float, test: float) -> Bounds:
    """Return where to cut the texts of each label, given their places, so that each part has its share of every label.

    A label's texts with the lowest places are for test, those after them for validation: the bounds are `test` and
    `test + validation` where that gives the right numbers already, and the nearest that do elsewhere. So texts mostly
    stay where `split_of` has them, and one text more moves hardly any other. Numbers are rounded so that they add up to
    the share of the whole (by largest remainders); a label has one text in training at least, then one in validation.
    """
    ordered = {label: sorted(found) for label, found in places.items()}
    free = {label: len(found) - 1 for label, found in ordered.items()}
    validated = _shared_out(ordered, validation, free)
    tested = _shared_out(ordered, test, {label: count - validated[label] for label, count in free.items()})
    return {
        label: (_cut(found, tested[label], test), _cut(found, tested[label] + validated[label], test + validation))
        for label, found in ordered.items()
    }


def _shared_out(places: Mapping[str, Sequence[float]], share: float, most: Mapping[str, int]) -> dict[str, int]:
    """Return how many texts of each label make up `share` of all: its own share of them, but `most` of each.

    Those with the largest remainders are rounded up, of equal ones those whose next text has the lowest place.
    """
    quotas = {label: share * len(found) for label, found in places.items()}
    counts = {label: min(math.floor(quota), most[label]) for label, quota in quotas.items()}
    total = sum(map(len, places.values()))
    missing = (max(1, round(share * total)) if share else 0) - sum(counts.values())
    remainders = {
        label: quotas[label] - counts[label] for label in places if counts[label] < min(quotas[label], most[label])
    }
    # Products such as 0.07 * 100 are a little off a whole.
    order = sorted(remainders, key=lambda label: (-round(remainders[label], 9), places[label][counts[label]]))
    return counts | {label: counts[label] + 1 for label in order[: max(0, missing)]}


def _cut(places: Sequence[float], count: int, usual: float) -> float:
    """Return the bound below which the first `count` of `places` lie, the nearest to `usual`."""
    lowest = math.nextafter(places[count - 1], 1) if count else 0.0
    return min(max(usual, lowest), places[count])
