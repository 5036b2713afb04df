"""What all fine-tuning objectives share: random batches, cut by length, and validation by the task's metrics.

A subclass says how examples are encoded and collated and what the loss of a batch is. It trains `model`, which becomes
the model directory.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.core.seeds import numpy_generator
from lucidlm.data.examples.records import Example
from lucidlm.data.split import Split
from lucidlm.distributed.ranks import ALONE, Ranks
from lucidlm.metrics.statistics import standard_error
from lucidlm.model.heads import Model
from lucidlm.predict.batching import cut_by_length
from lucidlm.tasks.base.task import Predictor, Task
from lucidlm.tokenize.embedding_rows import padding
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.train.finetune.config import FinetuneConfig

C = TypeVar("C", bound=FinetuneConfig)
E = TypeVar("E", bound=Example)
Batch = TypeVar("Batch")


class TaskObjective(ABC, Generic[C, E, Batch]):
    """The training objective of a task; satisfies `lucidlm.train.step.Objective`.

    Parameters
    ----------
    config: with `max_length` filled in.
    examples: those of the training and validation parts.
    predictor: predicts with the current weights of `model`.

    `ranks` is which of several processes this is: each reads its rows of a batch, and predicts its share of the validation
    examples.
    """

    ranks: Ranks = ALONE

    head: ClassVar[tuple[str, ...]] = ()
    """Name prefixes of the parameters that are new, not the pretrained model's."""

    measures_loss: ClassVar[bool] = False
    """Whether `evaluate` returns a `validation_loss` beside the task's metrics."""

    def __init__(
        self,
        config: C,
        task: Task[Any, Any],
        examples: dict[Split, list[E]],
        model: Model,
        tokenizer: Tokenizer,
        predictor: Predictor[Any, Any],
    ) -> None:
        self.config, self.task, self.model, self.tokenizer, self.predictor = config, task, model, tokenizer, predictor
        self.train, self.validation = examples["train"], examples["validation"]
        self.lengths = np.array(self.encode(self.train))
        self.steps_per_epoch = math.ceil(len(self.train) / config.batch_size)
        figures = {metric.name: metric.higher_is_better for metric in task.metrics(self.validation or self.train)}
        if self.measures_loss:
            figures["loss"] = False
        chosen = config.monitor or self.usual_monitor(next(iter(figures)))
        if chosen not in figures:
            known = ", ".join(figures)
            raise InputError(f"{task.name} measures no {chosen!r}", where="monitor", fix=f"It measures {known}.")
        self.monitor, self.higher_is_better, self.noise = f"validation_{chosen}", figures[chosen], 0.0

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.model.parameters()).device

    @property
    def padding_id(self) -> int:
        """The token that batches are padded with."""
        return padding(self.tokenizer, self.model.config.vocab_size)

    def usual_monitor(self, first: str) -> str:
        """Return the default for `config.monitor`: the task's `first` metric."""
        return first

    @classmethod
    @abstractmethod
    def build(
        cls,
        config: C,
        task: Any,
        loaded: LoadedModel,
        examples: dict[Split, list[E]],
        device: torch.device,
    ) -> Self:
        """Build the model to train from the pretrained one, and its objective.

        Raises
        ------
        InputError: the pretrained model or the examples cannot be used.
        """

    @abstractmethod
    def encode(self, examples: Sequence[E]) -> list[int]:
        """Tokenize the training examples, once, and keep the result; return how many tokens each takes in a batch."""

    @abstractmethod
    def collate(self, rows: np.ndarray, generator: np.random.Generator) -> Batch:
        """Collate the training examples `rows` into a batch; all randomness comes from `generator`."""

    @abstractmethod
    def counted(self, batch: Batch) -> int:
        """Return the number of tokens (or examples) that the loss of a batch is summed over."""

    @abstractmethod
    def tokens(self, batch: Batch) -> int:
        """Return how many tokens the model reads for a batch."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the summed loss of a batch, a scalar; see `counted`."""

    def batches(self, first_step: int) -> Iterator[list[Batch]]:
        """Yield each step's batch in micro-batches, from `first_step` on; the same whenever asked."""
        for step, rows in enumerate(self._rows(first_step), first_step):
            yield self.micro_batches(rows, step)

    def _rows(self, first_step: int) -> Iterator[np.ndarray]:
        """Yield the rows of each step's batch, from `first_step` on."""
        first_epoch, start = divmod(first_step, self.steps_per_epoch)
        for epoch in itertools.count(first_epoch):
            yield from self._epoch(epoch)[start if epoch == first_epoch else 0 :]

    def micro_batches(self, rows: np.ndarray, step: int) -> list[Batch]:
        """Collate the training examples `rows` of a step's batch, those of like length together.

        The gradient is that of the whole batch, which stays a random draw: batches of texts of one length are easier to
        read and worse to learn from.
        """
        generator = numpy_generator(self.config.loop.seed, "batch", step, *self._own_stream)
        own = rows[slice(*self.ranks.bounds(len(rows)))]
        return [self.collate(own[part], generator) for part in cut_by_length(self.lengths[own], self.device)]

    @property
    def _own_stream(self) -> tuple[int, ...]:
        """What tells the random numbers of this rank from those of the first one."""
        return () if self.ranks.first else (self.ranks.rank,)

    def _epoch(self, epoch: int) -> list[np.ndarray]:
        """Return the rows of each batch of an epoch, drawn at random without replacement."""
        size = self.config.batch_size
        order = numpy_generator(self.config.loop.seed, "epoch", epoch).permutation(len(self.train))
        return [order[start : start + size] for start in range(0, len(order), size)]

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the task's metrics on the validation examples; empty if there are none."""
        if not self.validation:
            return {}
        return self.score(self.validation, self.predictions(self.validation))

    def predictions(self, examples: Sequence[E]) -> list[Any]:
        """Return the predictor's predictions, each rank making its share of them."""
        return self.ranks.map(self.predictor.predict, examples)

    def score(self, examples: Sequence[E], predictions: Sequence[Any]) -> dict[str, float]:
        """Return the task's metrics of the predictions for validation examples."""
        figures = {}
        for metric in self.task.metrics(examples):
            statistics, name = metric.statistics(examples, predictions), f"validation_{metric.name}"
            figures[name] = float(metric.value(statistics.sum(0)))
            if name == self.monitor:
                self.noise = standard_error(metric.value, statistics)
        return figures

    def describe(self, step: int) -> str:
        """Name the examples of a step."""
        epoch, index = divmod(step, self.steps_per_epoch)
        rows = self._epoch(epoch)[index]
        return f"{step} (epoch {epoch}, examples {', '.join(self.train[row].where for row in rows[:3])} …)"

    def keep(self, share: float) -> None:
        """Keep a `share` of the examples of both parts, the first ones, to see how long judging and finishing take."""
        self.train, self.validation = (part[: math.ceil(share * len(part))] for part in (self.train, self.validation))

    def step_parts(self, steps: int) -> list[list[tuple[int, int]]]:
        """Return how many texts each micro-batch of the first `steps` steps has, and how many tokens the longest has."""
        lengths = [self.lengths[rows] for rows in itertools.islice(self._rows(0), steps)]
        return [
            [(len(part), int(found[part].max())) for part in cut_by_length(found, self.device)] for found in lengths
        ]

    def finish(self, model: nn.Module) -> tuple[list[str], dict[str, float]]:
        """Fit what is fitted to the trained model, once it is trained, and evaluate it; return lines for the log as well."""
        return [], self.evaluate(model)

    def provenance(self) -> dict[str, Any]:
        """Return what the predictor needs from the model directory's provenance beside the configuration."""
        return {}

    def save_extras(self, directory: Path) -> None:
        """Write to the model directory the files that other software needs for this task."""

    def report(self) -> list[str]:
        """Return lines for the log: how many examples are truncated or read in windows, and why."""
        return []


def random_window(ids: np.ndarray, max_tokens: int, generator: np.random.Generator) -> np.ndarray:
    """Return all of `ids` (n, …) if they fit, else a random window of them (max_tokens, …)."""
    if len(ids) <= max_tokens:
        return ids
    start = generator.integers(len(ids) - max_tokens + 1)
    return ids[start : start + max_tokens]
