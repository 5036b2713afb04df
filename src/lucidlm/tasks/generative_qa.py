"""Generative question answering: an answer in the model's words to a question about a context."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from lucidlm.baselines.span_readers import SentenceOverlap
from lucidlm.core.errors import InputError
from lucidlm.core.progress import log
from lucidlm.data.examples.records import Answer, GeneratedText, Question, Row
from lucidlm.data.examples.squad import flattened, is_nested
from lucidlm.metrics.answer_metrics import span_metrics
from lucidlm.metrics.statistics import Metric
from lucidlm.metrics.text_metrics import perplexity
from lucidlm.tasks.base.task import Baseline, tasks
from lucidlm.tasks.base.text_generation import TextGeneration
from lucidlm.tokenize.prompts import TokenizedExample, tokenize_pairs
from lucidlm.tokenize.tokenizer import Tokenizer

SOURCE_SHARE = 0.9


@dataclass(frozen=True)
class GenerativeQuestionAnswering(TextGeneration[Question]):
    """Generate the answer to a question about a context.

    The prompt is the question, a newline and the context; if that is too long, the end of the context is cut.
    """

    fields: ClassVar[tuple[str, ...]] = ("context", "question", "answers", "id")

    def rows(self, row: Row) -> Iterator[Row]:
        """Yield the questions of a row; of a nested SQuAD article, those that have an answer."""
        unanswered = 0
        for question in flattened(row):
            if is_nested(row) and question.fields.get("is_impossible") is True:
                unanswered += 1
            else:
                yield question
        if unanswered:
            log(f"{row.where}: {unanswered:,} questions without an answer left out: what is written is never empty")

    def read(self, row: Row) -> Question:
        """Turn a row into a question.

        Answers may be a string, a list of strings or of objects with a "text", or SQuAD's object with a list of texts.
        """
        context, question = row.text("context").strip(), row.text("question").strip()
        found = row.value("answers")
        called = row.names.get("answers", "answers")
        found = found.get("text") if isinstance(found, dict) else found
        listed = found if isinstance(found, list) else [found]
        texts = [one.get("text") if isinstance(one, dict) else one for one in listed]
        if not texts:
            raise InputError(
                f'field "{called}" has no answer',
                where=row.where,
                fix="Leave the question out: what is written is never empty.",
            )
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise InputError(f'field "{called}" holds an answer that is no text, or empty', where=row.where)
        answers = tuple(Answer(text, context.find(text)) for text in (str(text).strip() for text in texts))
        name = str(row.value("id")) if row.has("id") else row.where
        return Question(name, context, question, answers, row.where)

    def key(self, example: Question) -> str:
        """Return context and question, so that all answers to a question are in the same split."""
        return f"{example.context}\n{example.question}"

    def target(self, example: Question) -> tuple[Answer, ...]:
        """Return the reference answers."""
        return example.answers

    def together(self, examples: Sequence[Question]) -> list[Question]:
        """Merge equal questions: return the first, with the answers of all."""
        return [replace(examples[0], answers=tuple(dict.fromkeys(a for example in examples for a in example.answers)))]

    def texts(self, example: Question) -> tuple[str, ...]:
        """Return context, question and answers."""
        return (example.context, example.question, *(answer.text for answer in example.answers))

    def metrics(self, examples: Sequence[Question]) -> list[Metric]:
        """Return SQuAD's F1 and exact match of the answer's text, and the perplexity of the first reference answer."""
        return [*span_metrics(examples), perplexity()]

    def baselines(self) -> list[Baseline[Question, Any]]:
        """Return the baseline that answers with the sentence of the context that overlaps most with the question."""
        return [SentenceOverlap()]

    def show(self, example: Question, prediction: GeneratedText) -> dict[str, Any]:
        """Return the question, the reference answers and the generated one."""
        right = [answer.text for answer in example.answers]
        return {"question": example.question, "answers": right, "written": prediction.text}

    def tokenize(self, examples: Sequence[Question], tokenizer: Tokenizer, max_tokens: int) -> list[TokenizedExample]:
        """Return question and context as the prompt and the first answer as the target (see `tokenize_pairs`)."""
        pairs = [
            (f"{example.question}\n{example.context}", example.answers[0].text if example.answers else "")
            for example in examples
        ]
        return tokenize_pairs(pairs, tokenizer, max_tokens, source_share=SOURCE_SHARE)


GENERATIVE_QUESTION_ANSWERING = tasks.register("generative-question-answering")(
    GenerativeQuestionAnswering(
        name="generative-question-answering",
        description="an answer in the model's own words to a question about a text",
    )
)
