"""Fine-tuning for extractive question answering: cross-entropy of the answer's start and end, with a new head."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.seeds import numpy_generator
from lucidlm.data.examples.records import Question, Span
from lucidlm.data.split import Split
from lucidlm.model.heads import SpanExtractor
from lucidlm.predict.batching import bucket_by_length, pad, tokens_per_batch
from lucidlm.predict.span_reader import EncodedQuestion, SpanReader, Window, allowed_positions, overlaps, segments
from lucidlm.tasks.question_answering import QuestionAnswering
from lucidlm.train.finetune.backbone import backbone_config, pretrained_backbone
from lucidlm.train.finetune.cloze import ClozeQuestions
from lucidlm.train.finetune.config import QuestionAnsweringConfig
from lucidlm.train.finetune.objective import TaskObjective

ELSEWHERE = 0.1
"""How often training draws any window of a long context, also one without the answer, so that the model learns to
abstain there."""

OVERLAP_SPREAD = 2.0
"""The standard deviation of the overlap's weight in its prior, around zero, which decides where few are held out."""

SYNTHETIC = 0.7
"""The share of a run's steps that train on synthetic questions, before the real ones."""


@dataclass
class SpanBatch:
    """Token ids (B, T) int64 padded on the right, their lengths (B,) and segments (B, T), the positions allowed in an
    answer (B, T) bool, and the answer's start and end (B,) int64: 0 and 0 if the window does not hold it."""

    tokens: Tensor
    lengths: Tensor
    token_type_ids: Tensor
    allowed: Tensor
    starts: Tensor
    ends: Tensor


class SpanObjective(TaskObjective[QuestionAnsweringConfig, Question, SpanBatch]):
    """Cross-entropy of the first and the last token of an answer, over the allowed positions.

    Training reads a random window of a context that is longer than the model's, usually one that holds the answer, and
    draws one of several right answers. With `synthetic` text, the first steps train on new questions made of it and of
    the training contexts. A threshold for giving no answer is fitted on the validation questions, if some of the
    training questions have none.
    """

    head: ClassVar[tuple[str, ...]] = ("qa_outputs",)

    @classmethod
    def build(
        cls,
        config: QuestionAnsweringConfig,
        task: QuestionAnswering,
        loaded: LoadedModel,
        examples: dict[Split, list[Question]],
        device: torch.device,
    ) -> Self:
        """Put a new span head on the pretrained backbone, whose attention is bidirectional by default.

        Raises
        ------
        InputError: the model cannot be used, or the source of synthetic questions holds no text to make them of.
        """
        backbone, tokenizer = pretrained_backbone(loaded, config.model)
        shape = backbone_config(backbone.config, config, bidirectional=True)
        model = SpanExtractor(shape, seed=config.loop.seed)
        model.transformer.load_state_dict(backbone.state_dict())
        threshold = None if all(question.answers for question in examples["train"]) else 0.0
        reader = SpanReader.from_model(
            model.to(device), tokenizer, config.max_length or shape.context_length, threshold
        )
        return cls(config, task, examples, model, tokenizer, reader)

    def encode(self, examples: Sequence[Question]) -> list[int]:
        assert isinstance(self.predictor, SpanReader)
        self.reader = self.predictor
        self.encoded = self.reader.encode(examples)
        self.cloze: ClozeQuestions | None = None
        if self.config.synthetic is not None:
            contexts = [(question.context, question.where) for question in examples]
            self.cloze = ClozeQuestions.read(
                self.config.synthetic, self.config.encoding, self.config.on_error, contexts
            )
        max_tokens = self.reader.max_tokens
        around = self.reader.around
        return [min(len(found.question) + len(found.context), max_tokens) + around for found in self.encoded]

    def __init__(self, *args: object, **keywords: object) -> None:
        super().__init__(*args, **keywords)  # pyright: ignore[reportArgumentType]
        self.real_steps = self.steps_per_epoch
        if self.cloze is not None:
            self.steps_per_epoch = math.ceil(self.real_steps / (1 - SYNTHETIC))
        total = self.config.planned_steps(self.steps_per_epoch)
        self.synthetic_steps = 0 if self.cloze is None else round(SYNTHETIC * total)

    def batches(self, first_step: int) -> Iterator[list[SpanBatch]]:
        """Yield each step's batch, first of synthetic questions, then of real ones; the same whenever asked."""
        step = first_step
        while step < self.synthetic_steps:
            assert self.cloze is not None
            generator = numpy_generator(self.config.loop.seed, "cloze", step)
            questions = self.cloze.draw(self.config.batch_size, generator)
            questions = questions[slice(*self.ranks.bounds(len(questions)))]
            yield [self._batch(questions, self.reader.encode(questions), generator)]
            step += 1
        while True:
            yield self.micro_batches(self._real_rows(step), step)
            step += 1

    def _real_rows(self, step: int) -> np.ndarray:
        """Return the rows of a step's training questions, after the synthetic steps."""
        epoch, index = divmod(step - self.synthetic_steps, self.real_steps)
        return self._epoch(epoch)[index]

    def collate(self, rows: np.ndarray, generator: np.random.Generator) -> SpanBatch:
        return self._batch([self.train[row] for row in rows], [self.encoded[row] for row in rows], generator)

    def _batch(
        self, questions: Sequence[Question], encoded: Sequence[EncodedQuestion], generator: np.random.Generator
    ) -> SpanBatch:
        drawn = [self._window(*pair, generator) for pair in zip(questions, encoded, strict=True)]
        windows = [window for window, _, _ in drawn]
        tokens, lengths = pad([window.ids for window in windows], self.padding_id)
        starts, ends = (torch.tensor([places[which] for places in drawn]) for which in (1, 2))
        parts = (tokens, lengths, segments(windows), allowed_positions(windows), starts, ends)
        return SpanBatch(*(part.to(self.device) for part in parts))

    def _window(
        self, question: Question, encoded: EncodedQuestion, generator: np.random.Generator
    ) -> tuple[Window, int, int]:
        """Return a random window of a question, and the start and end in it of one of its answers: 0 and 0 for none."""
        width, size = self.reader.width(encoded), len(encoded.context)
        last_start = max(0, size - width)
        if not question.answers:
            return self.reader.window(encoded, int(generator.integers(last_start + 1))), 0, 0
        answer = question.answers[generator.integers(len(question.answers))]
        first, last = encoded.tokens_of(answer.start, answer.start + len(answer.text))
        low, high = max(0, last + 1 - width), min(first, last_start)
        if last_start and generator.random() < ELSEWHERE:
            low, high = 0, last_start
        # An answer longer than a window is never whole in one: the window begins where it does.
        start = int(generator.integers(low, high + 1)) if low <= high else first
        window = self.reader.window(encoded, start)
        shift = window.begin - start
        if start <= first and last < start + width:
            return window, first + shift, last + shift
        return window, 0, 0

    def counted(self, batch: SpanBatch) -> int:
        return len(batch.starts)

    def tokens(self, batch: SpanBatch) -> int:
        return int(batch.lengths.sum())

    def loss(self, model: nn.Module, batch: SpanBatch) -> Tensor:
        logits = model(batch.tokens, batch.lengths, batch.token_type_ids)
        pairs = zip(logits, (batch.starts, batch.ends), strict=True)
        return sum((self._cross_entropy(part, batch.allowed, right) for part, right in pairs), torch.tensor(0.0)) / 2

    def _cross_entropy(self, logits: Tensor, allowed: Tensor, right: Tensor) -> Tensor:
        """Return the summed cross-entropy of the positions `right` (B,), label-smoothed over the `allowed` ones (B, T)."""
        losses = -logits.float().masked_fill(~allowed, float("-inf")).log_softmax(-1)
        of_right = losses.gather(1, right[:, None]).sum()
        spread = self.config.label_smoothing
        if not spread:
            return of_right
        smooth = (losses.masked_fill(~allowed, 0.0).sum(-1) / allowed.sum(-1)).sum()
        return (1 - spread) * of_right + spread * smooth

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Fit the threshold for giving no answer to the validation questions, then return the task's metrics on them."""
        if self.validation and self.reader.threshold is not None:
            self.reader.threshold = None
            self.reader.threshold = self._threshold(self.predictions(self.validation))
        return super().evaluate(model)

    def finish(self, model: nn.Module) -> tuple[list[str], dict[str, float]]:
        """Fit what the overlap of question and sentence counts to the validation questions, then judge the model with it."""
        self.reader.overlap_weight = weight = self._overlap_weight()
        lines = [
            f"overlap: a sentence with all of the question's terms adds {weight:.2f} to the logits of starts in it"
        ]
        return lines if self.validation else [], self.evaluate(model)

    def _overlap_weight(self) -> float:
        """Return the weight that minimises the cross-entropy of the validation answers' starts, with a normal prior."""
        # Slow to import, and needed once a run.
        from scipy.optimize import minimize_scalar

        windows, places = self._answered(self.validation)
        if not windows:
            return 0.0
        most, found = tokens_per_batch(self.reader.model, self.reader.max_length), []
        for rows in bucket_by_length([window.ids for window in windows], most):
            batch = [windows[row] for row in rows]
            logits = self.reader.logits(batch)[0].masked_fill(~allowed_positions(batch), float("-inf"))
            found.append((logits.numpy(), overlaps(batch).numpy(), places[rows]))

        def cost(weight: float) -> float:
            total = (weight / OVERLAP_SPREAD) ** 2 / 2
            for logits, overlap, right in found:
                moved = logits + weight * overlap
                total += float((np.logaddexp.reduce(moved, 1) - moved[np.arange(len(right)), right]).sum())
            return total

        best: Any = minimize_scalar(cost, bounds=(0, 5 * OVERLAP_SPREAD), method="bounded")
        return float(best.x)

    def _answered(self, questions: Sequence[Question]) -> tuple[list[Window], np.ndarray]:
        """Return a window of each question that holds its first answer whole, and where in it the answer starts."""
        windows, places = [], []
        answered = [question for question in questions if question.answers]
        for question, encoded in zip(answered, self.reader.encode(answered), strict=True):
            answer, width = question.answers[0], self.reader.width(encoded)
            first, last = encoded.tokens_of(answer.start, answer.start + len(answer.text))
            holding = (one for one in self.reader.windows(encoded) if one.start <= first <= last < one.start + width)
            if (window := next(holding, None)) is not None:
                windows.append(window)
                places.append(window.begin + first - window.start)
        return windows, np.array(places, dtype=np.int64)

    def _threshold(self, answers: Sequence[Span]) -> float:
        """Return the score below which empty answers maximise the F1 of `answers` to the validation questions."""
        metric = self.task.metrics(self.validation)[0]
        given = metric.statistics(self.validation, answers)
        empty = metric.statistics(self.validation, [Span("", 0)] * len(answers))
        scores = np.array([answer.score for answer in answers])
        order = np.argsort(scores)
        # Row k: the k answers of the lowest scores are left empty.
        sums = given.sum(0) + np.concatenate([0 * given[:1], np.cumsum((empty - given)[order], axis=0)])
        best = int(np.argmax(metric.value(sums)))
        return float(scores[order[best - 1]]) if best else float(scores[order[0]]) - 1.0

    def provenance(self) -> dict[str, Any]:
        """Return the threshold for giving no answer, and what the overlap of question and sentence counts."""
        return {"threshold": self.reader.threshold, "overlap_weight": self.reader.overlap_weight}

    def describe(self, step: int) -> str:
        if step < self.synthetic_steps:
            return f"{step} (questions made of {self.config.synthetic})"
        rows = self._real_rows(step)
        return f"{step} (examples {', '.join(self.train[row].where for row in rows[:3])} …)"

    def report(self) -> list[str]:
        lines = []
        if count := sum(not question.answers for question in self.train):
            lines.append(f"{count:,} training questions have no answer in their context")
        if count := sum(len(found.context) > self.reader.width(found) for found in self.encoded):
            lines.append(f"{count:,} contexts do not fit beside their question: read in windows")
        if count := sum(found.cut > 0 for found in self.encoded):
            lines.append(f"{count:,} questions are longer than {self.reader.max_tokens // 2:,} tokens: cut there")
        if self.cloze is not None:
            lines.append(f"the first {self.synthetic_steps:,} steps learn from {self.cloze.description}")
        return lines
