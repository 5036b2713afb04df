"""Extractive question answering: questions about contexts in, spans of the contexts out.

What the model reads is `<end> question <end> context <end>`, the context in overlapping windows where it is long (Devlin
et al. 2019, arXiv:1810.04805), or with the tokens that its tokenizer puts around texts in their place: `[CLS] question
[SEP] context [SEP]`. A span that starts and ends at the first token says that the window holds no answer. In the context
a mark, the token `<mask>`, stands before each stretch of terms that the question has too: the exact match of Chen et al.
2017 (arXiv:1704.00051), who found it to matter much, as a token rather than as a feature. Models that were tuned
elsewhere know no marks, and tokenizers without that token have none. An answer's start counts the more, the more of the
question's terms its sentence has, by a weight that is fitted to the validation questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self, overload

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.arguments import require_text, require_texts
from lucidlm.core.errors import InputError
from lucidlm.core.progress import log, track
from lucidlm.data.examples.records import Question, Span
from lucidlm.data.scripts import sentences
from lucidlm.model.heads import SpanExtractor
from lucidlm.predict.batching import bucket_by_length, pad, tokens_per_batch
from lucidlm.predict.terms import overlap_at, shared_terms, terms
from lucidlm.predict.text_model import TextModel
from lucidlm.tokenize.embedding_rows import padding, refuse_beyond
from lucidlm.tokenize.tokenizer import Tokenizer

LONGEST = 30
"""The most tokens that an answer may have."""

SHORTEST_INPUT = 16
"""The fewest tokens that a reader must be able to read at once for a question and something of a context."""


@dataclass(frozen=True, slots=True)
class EncodedQuestion:
    """A question and its context as tokens.

    Parameters
    ----------
    question, context: token ids, int32, the question's cut to the room it may take, the context's with marks.
    offsets: (context tokens, 2) int64, the characters of the context that each token covers; a token that is a part
        of a character covers all of it, a mark none.
    marks: which of the context's tokens are marks, bool.
    overlap: of each of the context's tokens, float64: the share of the question's terms that its sentence has.
    cut: how many tokens of the question were left out.
    """

    question: np.ndarray
    context: np.ndarray
    offsets: np.ndarray
    marks: np.ndarray
    overlap: np.ndarray
    cut: int

    def tokens_of(self, start: int, end: int) -> tuple[int, int]:
        """Return the first and the last of the context's tokens that cover its characters `start` to `end` - 1."""
        first = int(np.searchsorted(self.offsets[:, 1], start, side="right"))
        last = int(np.searchsorted(self.offsets[:, 0], end, side="left")) - 1
        return first, max(first, last)

    def part(self, start: int, width: int) -> EncodedQuestion:
        """Return the same question about `width` of the context's tokens, from `start` on."""
        inside = slice(start, start + width)
        return replace(
            self,
            context=self.context[inside],
            offsets=self.offsets[inside],
            marks=self.marks[inside],
            overlap=self.overlap[inside],
        )

    def text_of(self, context: str, first: int, last: int) -> tuple[str, int]:
        """Return what the tokens `first` to `last` cover of `context`, without white space around it, and its start."""
        start, end = int(self.offsets[first, 0]), int(self.offsets[last, 1])
        text = context[start:end]
        return text.strip(), start + len(text) - len(text.lstrip())


@dataclass(frozen=True, slots=True)
class Window:
    """What the model reads at once.

    Parameters
    ----------
    ids: token ids, int32.
    allowed: which of them an answer may start or end at, bool: the context's, but for marks, and the first, which says
        that there is none.
    overlap: see `EncodedQuestion`; 0 outside of the context.
    begin, start: where the context begins in `ids`, and with which of its tokens.
    """

    ids: np.ndarray
    allowed: np.ndarray
    overlap: np.ndarray
    begin: int
    start: int


class SpanReader(TextModel[SpanExtractor]):
    """A model that answers questions by spans of a text.

    >>> read = SpanReader("reader")
    >>> read("Who wrote it?", context="It was written by Ada.").text
    'Ada'

    A context that does not fit beside its question is read in windows, each overlapping the next by half. Of all spans
    of at most `LONGEST` tokens in all windows the one is taken whose start and end logits together surpass its window's
    for "no answer here" the most; that is its score.

    Parameters
    ----------
    source: a model that was fine-tuned for question answering, or another source of one.
    device: auto, cpu, cuda, cuda:1, mps.

    Raises
    ------
    InputError: there is no such model, or it does not find answers.
    """

    @classmethod
    def from_model(
        cls,
        model: SpanExtractor,
        tokenizer: Tokenizer,
        max_length: int,
        threshold: float | None = None,
        *,
        marks: bool = True,
    ) -> Self:
        """Use a model in memory, such as one that is being trained: the current weights answer.

        Parameters
        ----------
        threshold: answers whose score is not above it are left empty; None: there always is an answer.
        marks: show what question and context share, if the tokenizer has a token for it.

        Raises
        ------
        InputError: `max_length` is more than the model's context, or too short for a question and its context.
        """
        made = cls.__new__(cls)
        made._set(model, tokenizer, max_length, threshold, marks=marks)
        return made

    def _open(self, loaded: LoadedModel) -> None:
        if not isinstance(loaded.model, SpanExtractor):
            raise InputError(
                f"holds a {loaded.record['kind']} model, not one that finds answers",
                where=loaded.source,
                fix="Fine-tune it first: lucidlm finetune question-answering --model … --data … --out ….",
            )
        provenance = loaded.record["provenance"]
        length = provenance.get("config", {}).get("max_length") or loaded.model.config.context_length
        tokenizer, threshold = loaded.require_tokenizer(), provenance.get("threshold")
        self._set(loaded.model, tokenizer, length, threshold, marks="task" in provenance)
        self.overlap_weight = provenance.get("overlap_weight", 0.0)

    def _set(
        self,
        model: SpanExtractor,
        tokenizer: Tokenizer,
        max_length: int,
        threshold: float | None,
        *,
        marks: bool,
    ) -> None:
        if not SHORTEST_INPUT <= max_length <= model.config.context_length:
            raise InputError(
                f"{max_length:,} tokens at once are not what this model can read questions and contexts with",
                where="max_length",
                fix=f"Pass {SHORTEST_INPUT} to {model.config.context_length}, the model's context.",
            )
        self.model, self.tokenizer, self.max_length, self.threshold = model, tokenizer, max_length, threshold
        self.overlap_weight = 0.0  # what a sentence with all terms of the question adds to the logits of starts in it
        self._mark = tokenizer.find("mask_token") if marks else None
        end = [tokenizer.eos_id]
        self._begin, self._between = (np.array(ids or end, np.int32) for ids in (tokenizer.prefix, tokenizer.suffix))

    @overload
    def __call__(self, questions: str, *, context: str) -> Span: ...

    @overload
    def __call__(self, questions: Sequence[str], *, context: str | Sequence[str]) -> list[Span]: ...

    def __call__(self, questions: str | Sequence[str], *, context: str | Sequence[str]) -> Span | list[Span]:
        """Return the answer to a question, or to each of several; its text is empty where the context holds none.

        Parameters
        ----------
        context: the text that all questions are about, or one for each of them.

        Raises
        ------
        InputError: what is passed are no texts, or there are not as many contexts as questions.
        """
        if isinstance(questions, str):
            return self([questions], context=require_text(context, "context"))[0]
        asked = require_texts(questions, "questions")
        contexts = [context] * len(asked) if isinstance(context, str) else require_texts(context, "context")
        if len(contexts) != len(asked):
            what = f"{len(asked):,} questions and {len(contexts):,} contexts"
            raise InputError(what, where="context", fix="Pass one context, or one for each question.")
        pairs = enumerate(zip(contexts, asked, strict=True))
        return self.predict([Question(str(i), *pair, (), f"questions[{i}]") for i, pair in pairs])

    def __repr__(self) -> str:
        return self._shown(f"reads {self.max_length:,} tokens at once")

    @property
    def max_tokens(self) -> int:
        """How many tokens of question and context a window holds, beside those around them."""
        return self.max_length - self.around

    @property
    def before(self) -> int:
        """How many tokens stand before the question."""
        return len(self._begin)

    @property
    def around(self) -> int:
        """How many tokens stand before, between and after question and context."""
        return len(self._begin) + 2 * len(self._between)

    def encode(self, questions: Sequence[Question]) -> list[EncodedQuestion]:
        """Return each question and its context as tokens; a question takes at most half of the room.

        Raises
        ------
        InputError: one holds a token that the model has no row for.
        """
        contexts = list(dict.fromkeys(question.context for question in questions))
        encodings = self.tokenizer.encodings(contexts)
        known = {
            context: (np.array(found.ids, dtype=np.int32), _offsets(found.offsets), terms(context), sentences(context))
            for context, found in zip(contexts, encodings, strict=True)
        }
        most, asked = self.max_tokens // 2, self.tokenizer.encode_batch([question.question for question in questions])
        encoded = []
        for question, ids in zip(questions, asked, strict=True):
            context, offsets, told, bounds = known[question.context]
            read = (*ids, *context, *self._begin, *self._between)
            refuse_beyond(read, self.model.config.vocab_size, self.tokenizer, question.where)
            wanted = terms(question.question)
            marked = self._marked(context, offsets, shared_terms(wanted, told, len(question.context)))
            overlap = overlap_at(marked[1][:, 0], wanted, told, bounds)
            cut = max(0, len(ids) - most)
            encoded.append(EncodedQuestion(np.array(ids[:most], dtype=np.int32), *marked, overlap, cut))
        return encoded

    def _marked(
        self, context: np.ndarray, offsets: np.ndarray, shared: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a context's ids and offsets with a mark before each stretch of tokens with `shared` characters, and
        which of them are marks."""
        if self._mark is None:
            return context, offsets, np.zeros(len(context), dtype=bool)
        counts = np.concatenate([[0], np.cumsum(shared)])
        hit = counts[offsets[:, 1]] > counts[offsets[:, 0]]
        places = np.flatnonzero(hit & ~np.concatenate([[False], hit[:-1]]))
        ends = np.concatenate([[0], offsets[:, 1]])
        # A mark lies between its neighbours, so that offsets stay in order.
        empty = np.stack([offsets[places, 0], ends[places]], axis=1)
        marks = np.insert(np.zeros(len(context), dtype=bool), places, True)
        return np.insert(context, places, self._mark), np.insert(offsets, places, empty, axis=0), marks

    def width(self, encoded: EncodedQuestion) -> int:
        """Return how many tokens of its context a window of a question holds."""
        return self.max_tokens - len(encoded.question)

    def window(self, encoded: EncodedQuestion, start: int) -> Window:
        """Return the window whose first token of the context is `start`."""
        part, between = slice(start, start + self.width(encoded)), self._between
        ids = np.concatenate([self._begin, encoded.question, between, encoded.context[part], between])
        begin = len(self._begin) + len(encoded.question) + len(between)
        allowed = np.zeros(len(ids), dtype=bool)
        inside = slice(begin, len(ids) - len(between))
        allowed[0], allowed[inside] = True, ~encoded.marks[part]
        overlap = np.zeros(len(ids))
        overlap[inside] = encoded.overlap[part]
        return Window(ids, allowed, overlap, begin, start)

    def windows(self, encoded: EncodedQuestion) -> list[Window]:
        """Return all windows of a question: one, if its context fits, else as many as cover it, half overlapping."""
        width, size = self.width(encoded), len(encoded.context)
        stride = max(1, width // 2)
        count = 1 + max(0, -(-(size - width) // stride))
        return [self.window(encoded, min(index * stride, max(0, size - width))) for index in range(count)]

    def predict(self, examples: Sequence[Question], label: str | None = None) -> list[Span]:
        """Answer each question; shows progress if given a `label` for it, and says how many questions were cut."""
        encoded = self.encode(examples)
        if label is not None and (cut := sum(question.cut > 0 for question in encoded)):
            log(
                f"{cut:,} {'question is' if cut == 1 else 'questions are'} longer than {self.max_tokens // 2:,} tokens: "
                "cut there"
            )
        answers = []
        for example, question, (score, first, last) in zip(examples, encoded, self.best(encoded, label), strict=True):
            if self.threshold is not None and score <= self.threshold:
                answers.append(Span("", 0, score))
            else:
                answers.append(Span(*question.text_of(example.context, first, last), score))
        return answers

    def long_inputs(self, examples: Sequence[Question]) -> dict[str, int]:
        """Return how many inputs are longer than a window, by what is done with them."""
        encoded = self.encode(examples)
        windowed = sum(len(found.context) > self.width(found) for found in encoded)
        return {"questions cut": sum(found.cut > 0 for found in encoded), "contexts read in windows": windowed}

    def best(self, encoded: Sequence[EncodedQuestion], label: str | None = None) -> list[tuple[float, int, int]]:
        """Return each question's best span, whether or not there is an answer: its score, and its first and last token in
        the context."""
        owners, windows = [], []
        for owner, question in enumerate(encoded):
            for window in self.windows(question):
                owners.append(owner)
                windows.append(window)
        found = [(float("-inf"), 0, 0)] * len(encoded)
        batches: Iterable[np.ndarray] = bucket_by_length(
            [window.ids for window in windows], tokens_per_batch(self.model, self.max_length)
        )
        if label is not None:
            batches = track(batches, label, unit="batches")
        was_training = self.model.training
        self.model.eval()
        with torch.inference_mode():
            for rows in batches:
                scores, firsts, lasts = self._spans([windows[row] for row in rows])
                for row, score, first, last in zip(rows, scores, firsts, lasts, strict=True):
                    shift = windows[row].start - windows[row].begin
                    found[owners[row]] = max(found[owners[row]], (score, first + shift, last + shift))
        self.model.train(was_training)
        return found

    def logits(self, windows: Sequence[Window]) -> tuple[Tensor, Tensor]:
        """Return the model's logits of starts and of ends, float64 (B, T) each, without what the overlap adds."""
        tokens, lengths = pad([window.ids for window in windows], padding(self.tokenizer, self.model.config.vocab_size))
        device, token_type_ids = self.model.qa_outputs.weight.device, segments(windows)
        starts, ends = self.model(tokens.to(device), lengths.to(device), token_type_ids.to(device))
        return starts.double().cpu(), ends.double().cpu()

    def _spans(self, windows: Sequence[Window]) -> tuple[list[float], list[int], list[int]]:
        """Return the best span of each window, its score over "no answer here" and its first and last position."""
        starts, ends = self.logits(windows)
        starts = starts + self.overlap_weight * overlaps(windows)
        none = starts[:, 0] + ends[:, 0]
        allowed = allowed_positions(windows)
        allowed[:, 0] = False
        starts, ends = (part.masked_fill(~allowed, float("-inf")) for part in (starts, ends))
        reach = torch.nn.functional.pad(ends, (0, LONGEST - 1), value=float("-inf")).unfold(1, LONGEST, 1)
        best, place = (starts[..., None] + reach).flatten(1).max(-1)  # of (B, T, LONGEST)
        firsts, lengths = place // LONGEST, place % LONGEST
        return (best - none).tolist(), firsts.tolist(), (firsts + lengths).tolist()


def _offsets(pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def segments(windows: Sequence[Window]) -> Tensor:
    """Return the segment of each token, (B, T) int64: 0 for the question, 1 for the context and what follows."""
    columns = torch.arange(max(len(window.ids) for window in windows))
    return (columns >= torch.tensor([[window.begin] for window in windows])).long()


def allowed_positions(windows: Sequence[Window]) -> Tensor:
    """Return where an answer may start or end, (B, T) bool, nowhere in the padding: see `Window.allowed`."""
    return pad_sequence([torch.from_numpy(window.allowed) for window in windows], batch_first=True)


def overlaps(windows: Sequence[Window]) -> Tensor:
    """Return the overlap of each token, (B, T) float64, 0 in the padding: see `Window.overlap`."""
    return pad_sequence([torch.from_numpy(window.overlap) for window in windows], batch_first=True)
