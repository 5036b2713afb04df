"""Why a stretch of a passage is the answer to a question: the log-probability of its start and its end together.

The answer's own words can get credit, but no test deletes them: without them there would be nothing to score. Our readers
are told beside the text which of the passage's words the question has too (see `predict.span_reader`). Where words are
blanked or deleted, marks and overlap are those of the words that are left; for gradients they stay as they are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lucidlm.core.errors import InputError
from lucidlm.data.examples.records import Question
from lucidlm.data.scripts import sentences
from lucidlm.explain.pieces import Piece, Unit, cut, joined_by
from lucidlm.explain.prediction import Prediction, blank_of, mark_of, same_as_target
from lucidlm.predict.span_reader import LONGEST, EncodedQuestion, SpanReader, Window
from lucidlm.predict.terms import Term, overlap_at, terms

Ends = tuple[int, int]
"""The places of an answer's first and last token in the input; both 0: that there is none."""


def predict_answer(
    reader: SpanReader, question: str, context: str, target: str | None, rather_than: str | None, by: Unit
) -> Prediction:
    """Return the prediction that a stretch of `context` answers `question`; see `predict` for the parameters.

    Of a passage that is too long to be read at once, that part is explained which is read where the answer is found.

    Raises
    ------
    InputError: the question is too long, or what is sought does not stand in the passage.
    """
    [encoded] = reader.encode([Question("", context, question, (), "TEXT")])
    if encoded.cut:
        raise InputError(
            f"has {encoded.cut + len(encoded.question):,} tokens, the model reads {len(encoded.question):,} of a question",
            where="TEXT",
            fix="Ask in fewer words.",
        )
    network = _where_found(reader, question, context, encoded, target, rather_than)
    found = network.predicted() if target is None else network.sought(target, "--target")
    other = None if rather_than is None else network.sought(rather_than, "--rather-than")
    if other == found:
        raise same_as_target(network.text(found))

    def score(tokens: Tensor, places: Tensor | None = None) -> Tensor:
        starts, ends = network.logits(tokens, places)
        starts = starts + network.overlap(tokens, places)
        if other is not None:
            return _of(found, starts, ends, places) - _of(other, starts, ends, places)
        return _of(found, starts.log_softmax(-1), ends.log_softmax(-1), places)

    def margin(tokens: Tensor, places: Tensor | None = None) -> Tensor:
        starts, ends = network.logits(tokens, places)
        chosen = _of(found, starts, ends, places)
        if other is not None:
            return chosen - _of(other, starts, ends, places)
        usual = [part.masked_fill(part.isinf(), 0.0).sum(-1) / part.isfinite().sum(-1) for part in (starts, ends)]
        return chosen - usual[0] - usual[1]

    asked = joined_by(by, question, cut(reader.tokenizer, question, first=reader.before)[1])
    told = network.passage()
    pieces = [*asked, *joined_by(by, "".join(piece.text for piece in told), told)]
    spans = [range(first, last + 1) for first, last in (found, other or found)]
    return Prediction(
        "answer",
        network.text(found),
        None if other is None else network.text(other),
        network.ids,
        pieces,
        *blank_of(reader.tokenizer, reader.model.config),
        mark_of(reader.tokenizer, reader.model.config),
        reader.model,
        score,
        margin,
        list(found),
        hints=reader.overlap_weight > 0 or bool(encoded.marks.any()),
        passage=len(asked),
        held=frozenset(
            index
            for index, piece in enumerate(pieces)
            if any(place in span for span in spans for place in piece.places)
        ),
        settle=network.hints.settle,
        part=None if len(network.encoded.context) == len(encoded.context) else network.part,
    )


def _where_found(
    reader: SpanReader,
    question: str,
    context: str,
    encoded: EncodedQuestion,
    target: str | None,
    rather_than: str | None,
) -> _Network:
    """Return what reads the part of the passage in which the sought answer, or else the model's, scores highest."""
    starts, width = [window.start for window in reader.windows(encoded)], reader.width(encoded)
    named = [text for text in (target, rather_than) if text is not None and text.strip()]
    start = starts[0]
    if not named and len(starts) > 1:
        scores = [score for score, _, _ in reader.best([encoded.part(start, width) for start in starts])]
        start = starts[int(np.argmax(scores))]
    if not named or len(starts) == 1 or any(text.strip() not in context for text in named):  # `sought` says so
        return _Network(reader, question, context, encoded, start)
    networks = [_Network(reader, question, context, encoded, start) for start in starts]
    able = [network for network in networks if all(network.places(text) for text in named)]
    if not able:
        raise InputError(
            f"{' and '.join(map(repr, named))} stand nowhere in the passage together, of which the model reads {width:,} "
            "tokens at once",
            where="--target" if rather_than is None else "--rather-than",
            fix="Pass shorter answers, or some that stand closer to each other.",
        )
    return max(able, key=lambda network: network.score(named[0]))


class _Network:
    """A reader's logits for one question and what it reads at once of the passage, from the token `start` on; words may be
    missing."""

    def __init__(self, reader: SpanReader, question: str, context: str, whole: EncodedQuestion, start: int) -> None:
        self.encoded = encoded = whole.part(start, reader.width(whole))
        self.skipped = int(np.count_nonzero(~whole.marks[:start]))
        window = reader.window(encoded, 0)
        self.reader, self.context, self.begin = reader, context, window.begin
        device = reader.model.qa_outputs.weight.device
        self.ids = torch.from_numpy(window.ids).to(device, torch.int64)
        self.allowed = torch.from_numpy(window.allowed).to(device)
        self.whole_overlap = torch.from_numpy(window.overlap).to(device, torch.float32)
        self.hints = _Hints.of(reader, question, context, encoded, window)

    def logits(self, tokens: Tensor, places: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the logits (B, T) of starts and of ends, minus infinity where no answer starts or ends."""
        at = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens) if places is None else places
        lengths = torch.full((len(tokens),), tokens.shape[1], device=tokens.device)
        starts, ends = self.reader.model(tokens, lengths, (at >= self.begin).long())
        barred = ~self.allowed[at]
        return starts.masked_fill(barred, float("-inf")), ends.masked_fill(barred, float("-inf"))

    def overlap(self, tokens: Tensor, places: Tensor | None) -> Tensor:
        """Return what the overlap of sentence and question adds to each start: (T,), or (B, T) where words are missing."""
        weight = self.reader.overlap_weight
        if places is None:
            return weight * self.whole_overlap
        if not weight:
            return torch.zeros_like(places, dtype=torch.float32)
        rows = []
        for row, at in zip(tokens, places, strict=True):
            shown = at[row == self.ids[at]].tolist()
            overlap = torch.from_numpy(self.hints.overlap(set(range(len(self.ids))) - set(shown)))
            rows.append(overlap.to(at.device, torch.float32)[at])
        return weight * torch.stack(rows)

    def predicted(self) -> Ends:
        """Return the answer that the model gives."""
        [(score, first, last)] = self.reader.best([self.encoded])
        threshold = self.reader.threshold
        return (0, 0) if threshold is not None and score <= threshold else (first + self.begin, last + self.begin)

    def sought(self, text: str, where: str) -> Ends:
        """Return where an answer stands, of several places the likeliest one."""
        if not text.strip():
            return 0, 0
        found = self.places(text)
        if not found:
            raise InputError(
                f"{text.strip()!r} does not stand in the passage",
                where=where,
                fix="Pass words as they stand there, or an empty text for no answer.",
            )
        if (length := found[0][1] - found[0][0] + 1) > LONGEST:
            raise InputError(
                f"has {length} tokens, an answer has {LONGEST} at most", where=where, fix="Pass fewer words."
            )
        starts, ends = self.read()
        return max(found, key=lambda span: float(_of(span, starts, ends, None)[0]))

    def places(self, text: str) -> list[Ends]:
        """Return all places in this part of the passage where `text` stands."""
        (begin, end), text = self.part, text.strip()
        found, at = list[Ends](), self.context.find(text, begin, end)
        while at >= 0:
            first, last = self.encoded.tokens_of(at, at + len(text))
            found.append((first + self.begin, last + self.begin))
            at = self.context.find(text, at + 1, end)
        return found

    def score(self, text: str) -> float:
        """Return by how much an answer, where it scores highest, surpasses that there is none."""
        starts, ends = self.read()
        none, *found = (float(_of(span, starts, ends, None)[0]) for span in ((0, 0), *self.places(text)))
        return max(found) - none

    def read(self) -> tuple[Tensor, Tensor]:
        """Return the logits (1, T) of starts and of ends, nothing missing."""
        with torch.inference_mode():
            starts, ends = self.logits(self.ids[None], None)
            return starts + self.overlap(self.ids[None], None), ends

    @property
    def part(self) -> tuple[int, int]:
        """The first of the passage's characters that are read, and the one after the last."""
        return int(self.encoded.offsets[0, 0]), int(self.encoded.offsets[-1, 1])

    def text(self, span: Ends) -> str:
        """Return an answer's text; it is empty where there is none."""
        if span == (0, 0):
            return ""
        return self.encoded.text_of(self.context, span[0] - self.begin, span[1] - self.begin)[0]

    def passage(self) -> list[Piece]:
        """Return the pieces of the passage by token; a mark goes with the token that it stands before."""
        read = np.flatnonzero(~self.encoded.marks)
        where = dict(enumerate((self.begin + read).tolist(), self.skipped))
        marks = {self.begin + int(index) for index in np.flatnonzero(self.encoded.marks)}
        pieces = []
        for piece in cut(self.reader.tokenizer, self.context)[1]:
            if any(place not in where for place in piece.places):
                continue  # it is not read, or not whole
            places = [where[place] for place in piece.places]
            pieces.append(Piece(piece.text, sorted({*places, *({place - 1 for place in places} & marks)})))
        return pieces


def _of(span: Ends, starts: Tensor, ends: Tensor, places: Tensor | None) -> Tensor:
    """Return the sum (B,) of what a span's start has of `starts` and its end of `ends`, (B, T) both."""
    if places is None:
        return starts[:, span[0]] + ends[:, span[1]]
    pairs = zip(span, (starts, ends), strict=True)
    return sum((part.masked_fill(places != at, 0.0).sum(1) for at, part in pairs), torch.zeros_like(starts[:, 0]))


@dataclass(frozen=True)
class _Shown:
    """A term, and the places of its tokens: without one of them it is no longer there."""

    term: Term
    places: frozenset[int]


@dataclass(frozen=True)
class _Hints:
    """What a reader is told of the words that question and passage share, as far as they are there.

    Parameters
    ----------
    asked, told: the terms of the question and of the passage.
    marks: for each mark's place the terms, of `told`, for which it stands there: one of them is enough.
    bounds: the passage's sentences; `starts` has the first character of each of its tokens.
    begin, length: where the passage begins in the input, and how long that is.
    """

    asked: Sequence[_Shown]
    told: Sequence[_Shown]
    marks: dict[int, list[_Shown]]
    bounds: list[tuple[int, int]]
    starts: np.ndarray
    begin: int
    length: int

    @classmethod
    def of(cls, reader: SpanReader, question: str, context: str, encoded: EncodedQuestion, window: Window) -> _Hints:
        """Return the hints of a whole question and passage."""
        offsets = np.array(reader.tokenizer.encodings([question])[0].offsets, dtype=np.int64).reshape(-1, 2)
        unmarked = np.where(encoded.marks[:, None], -1, encoded.offsets)  # marks cover no character
        asked = [_Shown(term, _places(offsets, term, reader.before)) for term in terms(question)]
        told = [_Shown(term, _places(unmarked, term, window.begin)) for term in terms(context)]
        places = (window.begin + np.flatnonzero(encoded.marks)).tolist()
        marks: dict[int, list[_Shown]] = {place: [] for place in places}
        known = {one.term[0] for one in asked}
        for one in told:
            if one.term[0] in known:
                # A stretch of shared words begins with its mark, so that the mark is the last one before the word.
                # In a part of a passage the first stretch may have its mark before that part.
                before = {bisect_right(places, token) - 1 for token in one.places} - {-1}
                for index in before:
                    marks[places[index]].append(one)
        return cls(asked, told, marks, list(sentences(context)), encoded.offsets[:, 0], window.begin, len(window.ids))

    def settle(self, gone: set[int]) -> set[int]:
        """Return which tokens go with the words whose places are `gone`: marks go when nothing that is left needs them."""
        asked = {one.term[0] for one in self.asked if not one.places & gone}
        needed = {
            mark
            for mark, terms in self.marks.items()
            if any(one.term[0] in asked and not one.places & gone for one in terms)
        }
        return (gone | self.marks.keys()) - needed

    def overlap(self, gone: set[int]) -> np.ndarray:
        """Return the overlap of each token of the input (T,), 0 outside of the passage, when the places `gone` are."""
        asked, told = ([one.term for one in part if not one.places & gone] for part in (self.asked, self.told))
        found = np.zeros(self.length)
        found[self.begin : self.begin + len(self.starts)] = overlap_at(self.starts, asked, told, self.bounds)
        return found


def _places(offsets: np.ndarray, term: Term, first: int) -> frozenset[int]:
    """Return the places of the tokens, whose characters are `offsets` (n, 2) and the first of which is at `first`, of a
    term."""
    _, start, end = term
    return frozenset((first + np.flatnonzero((offsets[:, 0] < end) & (offsets[:, 1] > start))).tolist())
