"""The pieces of a text that get attributions: its tokens, joined where they are parts of one character, word or sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lucidlm.data.scripts import sentences, token_spans
from lucidlm.tokenize.tokenizer import Tokenizer

Unit = Literal["token", "word", "sentence"]
"""What a piece is."""


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


def joined_by(unit: Unit, text: str, pieces: list[Piece]) -> list[Piece]:
    """Return `pieces` of `text` joined to words or sentences, with the white space before them.

    In scripts without spaces between words a character is one (see `data.scripts`), and so a word is what the tokens are.
    """
    if unit == "token":
        return pieces
    within = {
        at for start, end in (_words(text) if unit == "word" else sentences(text)) for at in range(start + 1, end)
    }
    found: list[Piece] = []
    at = 0  # where the next piece begins
    for piece in pieces:
        if found and (at in within or not found[-1].text.strip()):
            found[-1] = Piece(found[-1].text + piece.text, [*found[-1].places, *piece.places])
        else:
            found.append(Piece(piece.text, piece.places))
        at += len(piece.text)
    if len(found) > 1 and not found[-1].text.strip():
        last = found.pop()
        found[-1] = Piece(found[-1].text + last.text, [*found[-1].places, *last.places])
    return found


def _words(text: str) -> list[tuple[int, int]]:
    """Return where words and marks begin and end; what an apostrophe joins is one."""
    found: list[tuple[int, int]] = []
    for start, end in token_spans(text):
        joins = (
            found
            and found[-1][1] == start
            and end > start
            and text[start - 1] in "'’"
            and found[-1][1] > found[-1][0] + 1
        )
        if joins:
            found[-1] = found[-1][0], end
        else:
            found.append((start, end))
    return found
