"""What each kind of tuned model is asked and answers, as JSON: fields in, results out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import Field, create_model

from lucidlm.data.examples.records import ClassPrediction, MultiLabelPrediction, NumberPrediction, Pair, Question
from lucidlm.predict.classifier import BaseTextClassifier
from lucidlm.predict.pair_classifier import BasePairClassifier
from lucidlm.predict.sequence_writer import SequenceWriter
from lucidlm.predict.span_reader import SpanReader
from lucidlm.predict.token_tagger import TokenTagger
from lucidlm.serve.fields import Body, Text

MOST_INPUTS = 256

Inputs = Annotated[list[Text], Field(min_length=1, max_length=MOST_INPUTS)]
Columns = dict[str, list[str]]
"""The inputs, by field, a text for each."""


@dataclass(frozen=True, slots=True)
class TaskKind:
    """A kind of task.

    Parameters
    ----------
    fields: what it is asked, and what each field holds.
    answer: gives a result for each input, with a predictor of this kind.
    writes: whether results are texts that the model writes.
    """

    fields: dict[str, str]
    answer: Callable[[Any, Columns], list[dict[str, Any]]]
    writes: bool = False

    def body(self, task: str) -> type[Body]:
        """Return the body of a request: each field is a text, or a list of as many texts as the others."""
        fields: dict[str, Any] = {
            name: (Text | Inputs, Field(description=description)) for name, description in self.fields.items()
        }
        return create_model(f"{task.title().replace('-', '')}Request", __base__=Body, **fields)


def _classes(predictor: BaseTextClassifier[Any], asked: Columns) -> list[dict[str, Any]]:
    return [_labels(answer) for answer in predictor(asked["text"])]


def _pairs(predictor: BasePairClassifier[Any], asked: Columns) -> list[dict[str, Any]]:
    return [_labels(answer) for answer in predictor(asked["text"], asked["other"])]


def _labels(answer: ClassPrediction | MultiLabelPrediction | NumberPrediction) -> dict[str, Any]:
    if isinstance(answer, NumberPrediction):
        return {"score": answer.value}
    found = {"probabilities": dict(zip(answer.labels, answer.probabilities, strict=True))}
    return (
        {"label": answer.label, **found} if isinstance(answer, ClassPrediction) else {"labels": answer.chosen, **found}
    )


def _spans(predictor: SpanReader, asked: Columns) -> list[dict[str, Any]]:
    found = predictor(asked["question"], context=asked["context"])
    return [{"answer": span.text, "start": span.start, "score": span.score} for span in found]


def _entities(predictor: TokenTagger, asked: Columns) -> list[dict[str, Any]]:
    return [{"entities": [asdict(entity) for entity in found]} for found in predictor(asked["text"])]


def _texts(predictor: SequenceWriter, asked: Columns) -> list[dict[str, Any]]:
    return _written(predictor, [Pair(text.strip(), "", (), "the request") for text in asked["text"]])


def _answers(predictor: SequenceWriter, asked: Columns) -> list[dict[str, Any]]:
    columns = zip(asked["context"], asked["question"], strict=True)
    return _written(predictor, [Question("", context, question, (), "the request") for context, question in columns])


def _written(predictor: SequenceWriter, examples: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"text": text} for text in predictor.write(predictor.tokenize(examples))]


TEXT = {"text": "A text, or several."}
PAIR = {"text": "The first text, or several.", "other": "The second text, or as many."}
QUESTION = {"question": "A question, or several.", "context": "The text it is about, or one for each question."}


def kind_of(task: str, predictor: Any) -> TaskKind | None:
    """Return how to ask what answers `task`; None for what has endpoints of its own, such as chat and embeddings."""
    if isinstance(predictor, BaseTextClassifier):
        return TaskKind(TEXT, _classes)
    if isinstance(predictor, BasePairClassifier):
        return TaskKind(PAIR, _pairs)
    if isinstance(predictor, SpanReader):
        return TaskKind(QUESTION, _spans)
    if isinstance(predictor, TokenTagger):
        return TaskKind(TEXT, _entities)
    if task == "generative-question-answering":
        return TaskKind(QUESTION, _answers, writes=True)
    return TaskKind(TEXT, _texts, writes=True) if task in ("translation", "summarization") else None
