"""What fine-tuning shares whatever the task: shuffled batches of like length, and judging by the task's own metric.

A subclass says how an example is encoded, how a batch is put together and what its loss is. It trains `model`, which
becomes the model directory.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from lucidlm.checkpoint.directory import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.core.seeds import numpy_generator
from lucidlm.data.examples.records import Example
from lucidlm.data.split import Split
from lucidlm.model.heads import Model
from lucidlm.tasks.base.task import Predictor, Task
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.train.finetune.config import FinetuneConfig

E = TypeVar("E", bound=Example)
Batch = TypeVar("Batch")

STRETCH = 50
"""Batches that are sorted by length together: enough for little padding, few enough for other company each time."""


class TaskObjective(ABC, Generic[E, Batch]):
    """The training objective of a task; satisfies `lucidlm.train.step.Objective`.

    Parameters
    ----------
    config: with `max_length` filled in.
    examples: those of the training and validation parts.
    predictor: answers with `model` as it stands at the time of asking.
    """

    head: ClassVar[tuple[str, ...]] = ()
    """The first parts of the names of the parameters that are not the pretrained model's."""

    measures_loss: ClassVar[bool] = False
    """Whether `evaluate` returns a `validation_loss` beside the task's metrics."""

    def __init__(
        self,
        config: FinetuneConfig,
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
        self.monitor, self.higher_is_better = f"validation_{chosen}", figures[chosen]

    def usual_monitor(self, first: str) -> str:
        """Return the figure that decides which weights are best where none is asked for: the task's `first` metric."""
        return first

    @classmethod
    @abstractmethod
    def build(
        cls,
        config: FinetuneConfig,
        task: Any,
        loaded: LoadedModel,
        examples: dict[Split, list[E]],
        device: torch.device,
    ) -> Self:
        """Make the model that is to be trained from the pretrained one, and the objective around it.

        Raises
        ------
        InputError: the pretrained model or the examples cannot be used.
        """

    @abstractmethod
    def encode(self, examples: Sequence[E]) -> list[int]:
        """Turn the training examples into tokens, once, and keep them; return how many each takes in a batch."""

    @abstractmethod
    def collate(self, rows: np.ndarray, generator: np.random.Generator) -> Batch:
        """Make a batch of the training examples `rows`; whatever is random in it comes from `generator`."""

    @abstractmethod
    def counted(self, batch: Batch) -> int:
        """Return how many tokens (or examples) of a batch count in the loss."""

    @abstractmethod
    def tokens(self, batch: Batch) -> int:
        """Return how many tokens the model reads for a batch."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of a batch summed over what counts, a scalar."""

    def batches(self, first_step: int) -> Iterator[list[Batch]]:
        """Yield each step's batch, from `first_step` on; the same whenever asked."""
        step = first_step
        while True:
            epoch, start = divmod(step, self.steps_per_epoch)
            for rows in self._epoch(epoch)[start:]:
                yield [self.collate(rows, numpy_generator(self.config.loop.seed, "batch", step))]
                step += 1

    def _epoch(self, epoch: int) -> list[np.ndarray]:
        """Return the rows of each batch of an epoch.

        Examples are shuffled, sorted by length within stretches of many batches, cut, and the batches shuffled: little
        padding, and still other company for each example in every epoch.
        """
        generator = numpy_generator(self.config.loop.seed, "epoch", epoch)
        size = self.config.batch_size
        order = generator.permutation(len(self.train))
        parts = [order[start : start + STRETCH * size] for start in range(0, len(order), STRETCH * size)]
        order = np.concatenate([part[np.argsort(self.lengths[part], kind="stable")] for part in parts])
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        return [batches[index] for index in generator.permutation(len(batches))]

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Judge the model by the task's metrics on the validation examples; empty where there are none."""
        if not self.validation:
            return {}
        return self.judged(self.predictor.predict(self.validation))

    def judged(self, answers: Sequence[Any]) -> dict[str, float]:
        """Return the task's metrics of the answers to the validation examples."""
        metrics = self.task.metrics(self.validation)
        return {f"validation_{metric.name}": metric(self.validation, answers) for metric in metrics}

    def describe(self, step: int) -> str:
        """Name the examples of a step."""
        epoch, index = divmod(step, self.steps_per_epoch)
        rows = self._epoch(epoch)[index]
        return f"{step} (epoch {epoch}, examples {', '.join(self.train[row].where for row in rows[:3])} …)"

    def provenance(self) -> dict[str, Any]:
        """Return what the model directory's provenance has to tell the predictor beside the configuration."""
        return {}

    def save_extras(self, directory: Path) -> None:
        """Add to the saved model directory what other software needs to use the model for this task."""

    def report(self) -> list[str]:
        """Return what a person should know of the examples: how many were cut or windowed, and why."""
        return []
