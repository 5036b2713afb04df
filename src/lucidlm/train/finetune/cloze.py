"""Synthetic (cloze) questions from plain text, for question answering with few real examples.

A span of a sentence is masked and asked for with the words around it, some of them dropped and shuffled. So the model
learns to find the sentence of a question, and the kind of span that it asks for in it (Lewis et al. 2019, "Unsupervised
Question Answering by Cloze Translation", arXiv:1906.04980; here the translation is the noise alone, which they found to
do nearly as well). No tagger is needed: spans are numbers, names, quotations, and the words between function words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from lucidlm.core.errors import InputError
from lucidlm.data.document import OnError
from lucidlm.data.examples.records import Answer, Question
from lucidlm.data.scripts import sentences, separates_no_words
from lucidlm.data.sources.read import read_documents

QuestionKind = Literal["when", "number", "name", "quotation", "phrase"]

KINDS: dict[QuestionKind, float] = {"when": 0.15, "number": 0.15, "name": 0.3, "quotation": 0.05, "phrase": 0.35}
"""The probability of each kind of span in a sentence that has all of them."""

OWN = 0.3
"""The probability that a question is made from a training context, not from the other text."""

MOST = 20_000_000
"""Characters that are read of a source."""

LENGTHS = {False: (150, 700), True: (60, 250)}
"""Characters of a context, at least and at most, without and with a script that separates no words."""

SHORTEST_SENTENCE = {False: 40, True: 14}
ASKED = {False: (5, 14), True: (8, 26)}
"""Words (characters) of the sentence that a question uses, at least and at most."""

DROPPED = 0.55
"""The share of those that are left out."""

INFLECTED = 0.1
"""The share of words that lose or get an ending."""

_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_FUNCTION = (
    "a an the and or but nor of in on at to for from by with as is are was were be been being has have had do does did "
    "that which who whom whose this these those it its he she they his her their him them there then than so if when "
    "while where into over under after before between during through about also not no can could may might will would "
    "should must such both each all any some more most other only very however although because since until"
)
_WORD = r"[^\W\d_]+(?:['’-][^\W\d_]+)*"
_NOT_FUNCTION = rf"(?!(?i:{'|'.join(_FUNCTION.split())})\b)"
_SPACED: dict[QuestionKind, re.Pattern[str]] = {
    "when": re.compile(
        rf"\b(?:{_MONTHS})(?: \d{{1,2}})?(?:,? \d{{4}})?\b|\b\d{{1,2}} (?:{_MONTHS})(?: \d{{4}})?\b"
        r"|\b1[0-9]{3}s?\b|\b20[0-9]{2}s?\b|\b\d{1,2}th century\b"
    ),
    "number": re.compile(
        r"[$£€]?\d[\d,.]*(?<=\d)(?:%| percent\b| (?:million|billion|thousand)\b)?"
        r"|\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|hundred)\b"
    ),
    "name": re.compile(rf"\b{_NOT_FUNCTION}[A-Z][\w'’-]*(?: (?:of |the |de |von |van |and )?[A-Z][\w'’-]*)*"),
    "quotation": re.compile(r"(?<=[\"“])[^\"“”]{2,60}(?=[\"”])"),
    "phrase": re.compile(rf"\b(?![A-Z]){_NOT_FUNCTION}{_WORD}(?: (?:of |and |the )?{_NOT_FUNCTION}{_WORD}){{0,4}}"),
}
_HAN_FUNCTION = "的是在和与了为以及于由被把对从到等将也都而且或者其这那该并"
_HAN = rf"(?:(?![{_HAN_FUNCTION}])[\u4e00-\u9fff])"
_UNSPACED: dict[QuestionKind, re.Pattern[str]] = {
    "when": re.compile(
        r"(?:\d{2,4}\s?年(?:代|\s?\d{1,2}\s?月)?(?:\s?\d{1,2}\s?日)?|\d{1,2}\s?月(?:\s?\d{1,2}\s?日)?"
        r"|\d{1,2}\s?世纪|[一二三四五六七八九十]{1,3}(?:世纪|月))"
    ),
    "number": re.compile(
        r"\d[\d,.]*(?<=\d)\s?(?:%|％|万|亿|多)*[人个名年次种座位家英公]?(?:里|尺|斤|元)?"
        r"|[二三四五六七八九十百千万两]{1,5}[人个名次种座位家]"
    ),
    "name": re.compile(rf"[A-Za-z][A-Za-z'’. -]*[A-Za-z]|{_HAN}{{1,6}}(?:·{_HAN}{{1,6}})+"),
    "quotation": re.compile(r"(?<=[“《「])[^”》」]{2,20}(?=[”》」])"),
    "phrase": re.compile(rf"{_HAN}{{2,12}}"),
}
_ASK: dict[bool, dict[str, Sequence[str]]] = {
    False: {
        "when": ("when", "when", "in what year", "what year"),
        "number": ("how many", "how many", "how much", "what"),
        "name": ("who", "what", "which", "what is the name of"),
        "quotation": ("what", "what is"),
        "phrase": ("what", "what", "how", "what kind of", "why", "what type of"),
        "place": ("where", "where", "what", "in what"),
    },
    True: {
        "when": ("什么时候", "哪一年", "何时", "哪年"),
        "number": ("多少", "几", "有多少"),
        "name": ("谁", "什么", "哪个"),
        "quotation": ("什么", "哪个"),
        "phrase": ("什么", "什么", "哪个", "哪些", "怎样", "谁"),
        "place": ("哪里", "什么地方", "哪儿", "哪个"),
    },
}
_PLACED = {False: re.compile(r"\b(?:in|at|near|to|from)(?: the)? $"), True: re.compile(r"[在于到]$")}
_PIECE = {
    False: re.compile(r"\w+(?:['’.,-]\w+)*"),
    True: re.compile(r"[A-Za-z0-9.%]+|[^\W\d_]|\d"),
}
_AUXILIARIES = ("did", "was", "is", "does", "were", "are", "do", "has")


@dataclass(frozen=True, slots=True)
class Passage:
    """A text, whether its script separates no words, and where its sentences begin and end."""

    text: str
    where: str
    unspaced: bool
    sentences: tuple[tuple[int, int], ...]


class ClozeQuestions:
    """Draws synthetic questions from passages; the same for the same generator.

    Parameters
    ----------
    texts: texts and their sources (`where`).
    own: likewise, the contexts of the real questions.
    """

    def __init__(self, texts: Iterable[tuple[str, str]], own: Iterable[tuple[str, str]] = ()) -> None:
        self._other, self._own = _pool(texts), _pool(own)

    @classmethod
    def read(cls, source: str, encoding: str, on_error: OnError, own: Iterable[tuple[str, str]]) -> Self:
        """Make questions of a source of text, its first `MOST` characters, and of the contexts `own`.

        Raises
        ------
        InputError: the source cannot be read, or nothing in it can be asked for.
        """
        texts, size = [], 0
        for document in read_documents(source, encoding=encoding, on_error=on_error):
            texts.append((document.text, document.where))
            size += len(document.text)
            if size >= MOST:
                break
        made = cls(texts, own)
        if not made._other:
            raise InputError(
                "holds no sentences that questions can be made of",
                where=source,
                fix="Pass a source of prose, or leave out synthetic.",
            )
        return made

    @property
    def description(self) -> str:
        """What questions are made of, for a person."""
        return f"questions made of {len(self._other) + len(self._own):,} sentences"

    def draw(self, count: int, generator: np.random.Generator) -> list[Question]:
        """Return `count` questions, each with one answer in its context."""
        return [self._one(generator) for _ in range(count)]

    def _one(self, generator: np.random.Generator) -> Question:
        own = self._own and (not self._other or generator.random() < OWN)
        pool = self._own if own else self._other
        passage, chosen = pool[generator.integers(len(pool))]
        begin, end = _context(passage, chosen, generator)
        start, stop = passage.sentences[chosen]
        sentence = passage.text[start:stop]
        spans = _spans(sentence, passage.unspaced)
        kinds = list(spans)
        weights = np.array([KINDS[kind] for kind in kinds])
        kind = kinds[generator.choice(len(kinds), p=weights / weights.sum())]
        first, last = spans[kind][generator.integers(len(spans[kind]))]
        question = _ask(sentence, first, last, kind, passage.unspaced, generator)
        answer = Answer(sentence[first:last], start + first - begin)
        return Question(passage.where, passage.text[begin:end], question, (answer,), passage.where)


def _pool(texts: Iterable[tuple[str, str]]) -> list[tuple[Passage, int]]:
    """Return all sentences that a question can be made from: the passage and the sentence's number in it."""
    pool = []
    for text, where in dict.fromkeys(texts):
        unspaced = separates_no_words([text])
        passage = Passage(text, where, unspaced, tuple(sentences(text)))
        for number, (start, end) in enumerate(passage.sentences):
            if end - start >= SHORTEST_SENTENCE[unspaced] and _spans(text[start:end], unspaced):
                pool.append((passage, number))
    return pool


def _context(passage: Passage, chosen: int, generator: np.random.Generator) -> tuple[int, int]:
    """Return the bounds of a run of whole sentences around the chosen one, of random length or up to the whole passage."""
    length = generator.integers(*LENGTHS[passage.unspaced])
    first = last = chosen
    bounds = passage.sentences
    while bounds[last][1] - bounds[first][0] < length and (first > 0 or last + 1 < len(bounds)):
        if last + 1 == len(bounds) or (first > 0 and generator.random() < 0.5):
            first -= 1
        else:
            last += 1
    return bounds[first][0], bounds[last][1]


def _spans(sentence: str, unspaced: bool) -> dict[QuestionKind, list[tuple[int, int]]]:
    """Return the spans of a sentence that can be asked for, (start, end), by kind."""
    found: dict[QuestionKind, list[tuple[int, int]]] = {}
    for kind, pattern in (_UNSPACED if unspaced else _SPACED).items():
        spans = [match.span() for match in pattern.finditer(sentence)]
        if kind == "name" and not unspaced:
            # The first word of a sentence is capitalised whatever it is.
            spans = [(start, end) for start, end in spans if start > 0 or " " in sentence[start:end]]
        # What is nearly all of its sentence leaves nothing to ask with.
        spans = [(start, end) for start, end in spans if 2 * (end - start) < len(sentence)]
        if spans:
            found[kind] = spans
    return found


def _ask(
    sentence: str, first: int, last: int, kind: QuestionKind, unspaced: bool, generator: np.random.Generator
) -> str:
    """Return a question for `sentence[first:last]`."""
    before, after = _PIECE[unspaced].findall(sentence[:first]), _PIECE[unspaced].findall(sentence[last:])
    most = int(generator.integers(*ASKED[unspaced]))
    # As many words from each side as come, and more from one where the other has too few.
    left = min(len(before), max(int(generator.integers(most + 1)), most - len(after)))
    before, after = before[len(before) - left :], after[: most - left]
    placed = kind in ("name", "phrase") and _PLACED[unspaced].search(sentence[:first]) is not None
    asking = _ASK[unspaced]["place" if placed else kind]
    word = asking[int(generator.integers(len(asking)))]
    if unspaced:
        return _joined_unspaced(before, word, after, generator)
    return _joined_spaced(before, word, after, generator)


def _joined_spaced(before: list[str], word: str, after: list[str], generator: np.random.Generator) -> str:
    before, after = _thinned(before, generator), _thinned(after, generator)
    draw = generator.random()
    if draw < 0.1:
        words = [*before, word, *after]
    else:
        auxiliary = [_AUXILIARIES[generator.integers(len(_AUXILIARIES))]] if generator.random() < 0.5 else []
        rest = [*after, *before] if draw < 0.5 else [*before, *after]
        words = [word, *auxiliary, *(_shuffled(rest, generator) if draw > 0.8 else rest)]
    words = [_inflected(part) if generator.random() < INFLECTED else part for part in words]
    text = " ".join(words)
    return f"{text[:1].upper()}{text[1:]}?"


def _joined_unspaced(before: list[str], word: str, after: list[str], generator: np.random.Generator) -> str:
    pieces = [_thinned(_clustered(part, generator), generator) for part in (before, after)]
    draw = generator.random()
    if draw < 0.5:
        parts = [*pieces[0], word, *pieces[1]]
    elif draw < 0.8:
        parts = [*pieces[1], *pieces[0], word]
    else:
        parts = [*_shuffled([*pieces[0], *pieces[1]], generator), word]
    return f"{''.join(parts)}{'？' if generator.random() < 0.7 else '?'}"


def _clustered(characters: list[str], generator: np.random.Generator) -> list[str]:
    """Join characters in groups of two to four, since the script has no word boundaries."""
    clusters, start = [], 0
    while start < len(characters):
        size = int(generator.integers(2, 5))
        clusters.append("".join(characters[start : start + size]))
        start += size
    return clusters


def _thinned(parts: list[str], generator: np.random.Generator) -> list[str]:
    return [part for part in parts if generator.random() >= DROPPED]


def _shuffled(parts: list[str], generator: np.random.Generator) -> list[str]:
    """Move each part by up to three places."""
    return [parts[index] for index in np.argsort(np.arange(len(parts)) + generator.uniform(0, 4, len(parts)))]


def _inflected(word: str) -> str:
    """Give a word without capitals another ending."""
    if len(word) < 5 or not word.isalpha() or not word.islower():
        return word
    for ending in ("ing", "ed", "s"):
        if word.endswith(ending):
            return word.removesuffix(ending)
    return f"{word}s"
