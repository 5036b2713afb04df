"""Extractive question answering: a question and a context in, the stretch of the context that answers it out.

Rows are flat, one question each, as XQuAD's and SQuAD's on the hub: answers as a list of texts with their starts, or as
SQuAD's two lists `text` and `answer_start`; or they are SQuAD's articles as it was published. A question without answers
is one that the context does not answer (SQuAD 2.0: Rajpurkar et al. 2018, "Know What You Don't Know", arXiv:1806.03822).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from lucidlm.baselines.span_readers import SentenceOverlap
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.data.examples.records import Answer, Question, Row, Span
from lucidlm.data.examples.squad import flattened
from lucidlm.metrics.answer_metrics import span_metrics
from lucidlm.metrics.statistics import Metric
from lucidlm.predict.span_reader import SpanReader
from lucidlm.tasks.base.task import Baseline, Predictor, Task, tasks

STARTS = ("start", "answer_start")
"""What data sets call the place an answer begins at."""


@dataclass(frozen=True)
class QuestionAnswering(Task[Question, Span]):
    """The stretch of a context that answers a question, or none.

    Contexts stay as they are read: cleaning would move the answers in them.
    """

    answer: ClassVar[type] = Span
    fields: ClassVar[tuple[str, ...]] = ("id", "context", "question", "answers")

    def rows(self, row: Row) -> Iterable[Row]:
        """Return the questions of a row, which may be SQuAD's articles with theirs nested in paragraphs."""
        return flattened(row)

    def read(self, row: Row) -> Question:
        """Turn a row into a question; without a field "id" its place is its name."""
        context, question = row.text("context"), row.text("question").strip()
        name = str(row.value("id")) if row.has("id") else row.where
        return Question(name, context, question, _answers(row, context), row.where)

    def key(self, example: Question) -> str:
        """Return question and context: a question about another context is another question."""
        return f"{example.question}\n{example.context}"

    def target(self, example: Question) -> tuple[Answer, ...]:
        """Return the answers that are right."""
        return example.answers

    def together(self, examples: Sequence[Question]) -> list[Question]:
        """Return the first question, with the answers of all of them."""
        return [replace(examples[0], answers=tuple(dict.fromkeys(a for example in examples for a in example.answers)))]

    def texts(self, example: Question) -> tuple[str, ...]:
        """Return the question and its context."""
        return (example.question, example.context)

    def metrics(self, examples: Sequence[Question]) -> list[Metric]:
        """Return F1 of the answers' words, and the share of answers that match one of the right ones."""
        return span_metrics(examples)

    def baselines(self) -> list[Baseline[Question, Span]]:
        """Return the sentence that shares the most with the question."""
        return [SentenceOverlap()]

    def predictor(self, loaded: LoadedModel) -> Predictor[Question, Span]:
        """Return a reader of contexts."""
        return SpanReader.of(loaded)

    def show(self, example: Question, prediction: Span) -> dict[str, Any]:
        """Return the question, its context, the right answers and the one found, with its place and score."""
        return {
            "question": example.question,
            "context": example.context,
            "answers": [answer.text for answer in example.answers],
            "predicted": prediction.text,
            "start": prediction.start,
            "score": round(prediction.score, 4),
        }


def _answers(row: Row, context: str) -> tuple[Answer, ...]:
    """Return the answers of a row, each once, checked against its context."""
    if row.fields.get("is_impossible") is True:
        return ()
    found, called = row.value("answers"), row.names.get("answers", "answers")
    if isinstance(found, Mapping):
        starts = next((found[name] for name in STARTS if name in found), None)
        pairs = _paired(found.get("text"), starts, called, row.where)
    elif isinstance(found, list) and all(isinstance(answer, Mapping) for answer in found):
        pairs = [(answer.get("text"), next((answer[n] for n in STARTS if n in answer), None)) for answer in found]
    else:
        raise InputError(
            f'field "{called}" holds neither a list of answers nor lists of texts and starts',
            where=row.where,
            fix='Write [{"text": …, "start": …}, …], or [] where the context has no answer.',
        )
    return tuple(dict.fromkeys(_checked(text, start, context, called, row.where) for text, start in pairs))


def _paired(texts: Any, starts: Any, called: str, where: str) -> list[tuple[Any, Any]]:
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        raise InputError(
            f'field "{called}" does not hold as many starts as texts',
            where=where,
            fix='Write {"text": [the answers], "answer_start": [where each begins]}.',
        )
    return list(zip(texts, starts, strict=True))


def _checked(text: Any, start: Any, context: str, called: str, where: str) -> Answer:
    """Return the answer if it is a stretch of the context, and stands where it says."""
    if not isinstance(text, str) or not text.strip():
        raise InputError(f'field "{called}" has an answer without text', where=where, fix="Leave the answer out.")
    if not isinstance(start, int) or isinstance(start, bool):
        raise InputError(
            f"the answer {text!r} has no start, a whole number",
            where=where,
            fix="Say at which character of the context it begins, the first being 0.",
        )
    if start < 0 or context[start : start + len(text)] != text:
        found = context.find(text)
        if found < 0:
            fix = "An answer is copied from the context, character by character."
            raise InputError(f"the answer {text!r} is not in the context", where=where, fix=fix)
        nearest = min(_places(context, text), key=lambda place: abs(place - start))
        raise InputError(
            f"the answer {text!r} stands at {nearest}, not {start}",
            where=where,
            fix="Starts count characters (code points) of the context, the first being 0.",
        )
    return Answer(text, start)


def _places(context: str, text: str) -> list[int]:
    places, place = [], context.find(text)
    while place >= 0:
        places.append(place)
        place = context.find(text, place + 1)
    return places


QUESTION_ANSWERING = tasks.register("question-answering")(
    QuestionAnswering(name="question-answering", description="the stretch of a context that answers a question")
)
