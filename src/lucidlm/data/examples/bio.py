"""BIO tags, which mark entities word by word: O outside of them, B- at the first word of each, I- inside.

This is the scheme called IOB2 (Tjong Kim Sang and Veenstra 1999, arXiv:cs/9907006). In the older IOB1 (Ramshaw and
Marcus 1995) B- stands only between two entities of one type; its files are told by an I- that follows no B-.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

OUTSIDE = "O"
_TAG = re.compile(r"([BI])-(\S+)")

Stretch = tuple[str, int, int]
"""An entity: its type, its first word, and the word after its last one."""


def split_tag(tag: str) -> tuple[str, str]:
    """Return prefix and type: ("B", "PER"), ("I", "PER"), or ("O", "") for a tag that is neither B- nor I-."""
    found = _TAG.fullmatch(tag)
    return (found[1], found[2]) if found else (OUTSIDE, "")


def may_follow(tag: str, previous: str) -> bool:
    """Return whether `tag` may stand after `previous`, "O" before a first word: I- only inside an entity of its type."""
    prefix, kind = split_tag(tag)
    return prefix != "I" or split_tag(previous)[1] == kind


def tag_names(types: Iterable[str]) -> list[str]:
    """Return all tags for entities of `types`: O, then B- and I- of each in the order of their names."""
    return [OUTSIDE, *(f"{prefix}-{kind}" for kind in sorted(set(types)) for prefix in "BI")]


def first_fault(tags: Sequence[str]) -> tuple[int, str] | None:
    """Return the first of a sentence's tags that is wrong, and what is wrong with it; None if they are sound."""
    for place, (tag, previous) in enumerate(zip(tags, [OUTSIDE, *tags[:-1]], strict=True)):
        if tag != OUTSIDE and not _TAG.fullmatch(tag):
            return place, f"{tag!r} is no BIO tag"
        if not may_follow(tag, previous):
            return place, f"{tag} follows {previous}, not B-{tag[2:]} or I-{tag[2:]}"
    return None


def entities(tags: Sequence[str]) -> list[Stretch]:
    """Return the entities of a sentence, in order.

    An I- that follows no entity of its type begins one, as conlleval and seqeval's default have it: predictions that are
    not sound are judged by what they most likely mean.
    """
    found: list[Stretch] = []
    begun, inside = 0, ""
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, kind = split_tag(tag)
        if inside and (prefix != "I" or kind != inside):
            found.append((inside, begun, place))
            inside = ""
        if kind and not inside:
            begun, inside = place, kind
    return found
