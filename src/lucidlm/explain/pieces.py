"""The pieces of a text that get attributions: its tokens, joined where they are parts of one character."""

from __future__ import annotations

from dataclasses import dataclass

from lucidlm.tokenize.tokenizer import Tokenizer


@dataclass
class Piece:
    """A piece of text, and the positions of its tokens in the model's input."""

    text: str
    places: list[int]


def cut(tokenizer: Tokenizer, text: str, first: int = 0) -> tuple[list[int], list[Piece]]:
    """Return the token ids of `text`, and its pieces, which joined are the text; their places count from `first`."""
    found = tokenizer.encodings([text])[0]
    groups: list[tuple[int, list[int]]] = []  # the end of each piece in characters, and its places
    for place, (start, end) in enumerate(found.offsets, first):
        if groups and (start < groups[-1][0] or end <= groups[-1][0]):
            groups[-1] = max(groups[-1][0], end), [*groups[-1][1], place]
        else:
            groups.append((end, [place]))
    if groups:
        groups[-1] = len(text), groups[-1][1]
    starts = [0, *(end for end, _ in groups)]
    return found.ids, [Piece(text[start:end], places) for start, (end, places) in zip(starts, groups, strict=False)]
