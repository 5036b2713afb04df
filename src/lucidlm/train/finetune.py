"""Fine-tuning a classifier: from a pretrained model directory and labelled texts to a model that judges."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from lucidlm.core.config import Config
from lucidlm.core.devices import Precision, choose_compute, describe_machine
from lucidlm.core.errors import InputError
from lucidlm.core.io import require_vacant
from lucidlm.core.products import fast_products
from lucidlm.core.progress import say
from lucidlm.core.seeds import numpy_generator
from lucidlm.data.document import OnError
from lucidlm.data.split import Split, split_of
from lucidlm.model.classify import TextClassifier, pad
from lucidlm.model.directory import load_model, save_model
from lucidlm.model.heads import LanguageModel, Pooling, SequenceClassifier
from lucidlm.tasks import LabelledText, TextClassification, read_examples, tasks
from lucidlm.train.loop import Loop, LoopConfig, Outcome, describe_outcome
from lucidlm.train.optim import OptimizerConfig
from lucidlm.train.pretrain import CONFIG
from lucidlm.train.schedule import ScheduleConfig


class FinetuneConfig(Config):
    """A fine-tuning run, whole: saved as `config.yaml` beside what it makes, it can be replayed.

    Parameters
    ----------
    task: a name from the registry of tasks.
    model: the directory of the pretrained model.
    data: a source of labelled texts; the parts that `split_of` calls validation and test are left out of training.
    text_field, label_field: the fields of `data`, where they are not the task's own.
    encoding: how the bytes of `data` stand for text.
    validation, test: shares of the data held out; validation chooses the weights, test is for `evaluate`.
    max_length: tokens read at once; None: the model's context. Of a longer text, training takes another stretch each
        time and judging takes all of it, in windows.
    pooling: read the class from the last token's state or from the mean.
    epochs: passes over the training texts.
    batch_size: texts a step.
    dropout: as in `ModelConfig`; None: the pretrained model's.
    token_dropout: share of a text's tokens left out in training, others each time, so that the model cannot lean on
        single words (Iyyer et al. 2015, "Deep Unordered Composition Rivals Syntactic Methods").
    label_smoothing: share of the target spread over the other labels (Szegedy et al. 2015, arXiv:1512.00567).
    """

    task: str
    model: str
    data: str
    text_field: str | None = None
    label_field: str | None = None
    encoding: str = "utf-8"
    on_error: OnError = "stop"
    validation: float = Field(default=0.05, ge=0, lt=1)
    test: float = Field(default=0.05, ge=0, lt=1)
    max_length: int | None = Field(default=None, ge=8)
    pooling: Pooling = "mean"
    epochs: float = Field(default=3.0, gt=0)
    batch_size: int = Field(default=32, ge=1)
    dropout: float | None = Field(default=0.1, ge=0, lt=1)
    token_dropout: float = Field(default=0.2, ge=0, lt=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    device: str = "auto"
    precision: Precision = "auto"
    loop: LoopConfig = LoopConfig(
        # A third of pretraining's rates, falling all the way: the backbone is to be bent, not learned anew.
        optimizer=OptimizerConfig(learning_rate=1e-3, muon_learning_rate=3e-3),
        schedule=ScheduleConfig(warmup=0.1, decay=0.9),
        evaluations=6,
        patience=100,
    )


@dataclass
class TextBatch:
    """Token ids (B, T) int64 padded on the right, their lengths (B,), and label numbers (B,)."""

    tokens: Tensor
    lengths: Tensor
    labels: Tensor


class ClassificationObjective:
    """Cross-entropy of labelled texts, in batches of texts of like length."""

    measure = "validation_accuracy"
    higher_is_better = True

    def __init__(
        self,
        config: FinetuneConfig,
        classifier: TextClassifier,
        examples: dict[Split, list[LabelledText]],
        labels: dict[Split, np.ndarray],
    ) -> None:
        self.config, self.classifier = config, classifier
        self.train = classifier.encode([example.text for example in examples["train"]])
        self.train_labels, self.where = labels["train"], [example.where for example in examples["train"]]
        self.validation = classifier.encode([example.text for example in examples["validation"]])
        self.validation_labels = labels["validation"]
        self.steps_per_epoch = math.ceil(len(self.train) / config.batch_size)

    def batches(self, first_step: int) -> Iterator[list[TextBatch]]:
        step = first_step
        while True:
            epoch, start = divmod(step, self.steps_per_epoch)
            for rows in self._epoch(epoch)[start:]:
                yield [self._batch(rows, step)]
                step += 1

    def _epoch(self, epoch: int) -> list[np.ndarray]:
        """Return the rows of each batch of an epoch.

        Texts are shuffled, sorted by length within stretches of many batches, cut, and the batches shuffled: little
        padding, and still other company for each text in every epoch.
        """
        generator = numpy_generator(self.config.loop.seed, "epoch", epoch)
        size = self.config.batch_size
        order = generator.permutation(len(self.train))
        lengths = np.array([min(len(ids), self.classifier.room) for ids in self.train])
        stretch = 50 * size
        parts = [order[start : start + stretch] for start in range(0, len(order), stretch)]
        order = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in parts])
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        return [batches[index] for index in generator.permutation(len(batches))]

    def _batch(self, rows: np.ndarray, step: int) -> TextBatch:
        generator = numpy_generator(self.config.loop.seed, "batch", step)
        windows = [self.classifier.end(self._window(self.train[row], generator)) for row in rows]
        tokens, lengths = pad(windows, self.classifier.tokenizer.pad_id)
        device = self.classifier.model.model.embed_tokens.weight.device
        labels = torch.from_numpy(self.train_labels[rows])
        return TextBatch(tokens.to(device), lengths.to(device), labels.to(device))

    def _window(self, ids: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Return what the model gets to read of a text this time: a stretch of it that fits, with some tokens left out."""
        room = self.classifier.room
        if len(ids) > room:
            start = generator.integers(len(ids) - room + 1)
            ids = ids[start : start + room]
        if self.config.token_dropout:
            ids = ids[generator.random(len(ids)) >= self.config.token_dropout]
        return ids

    def counted(self, batch: TextBatch) -> int:
        return len(batch.labels)

    def tokens(self, batch: TextBatch) -> int:
        return int(batch.lengths.sum())

    def loss(self, model: nn.Module, batch: TextBatch) -> Tensor:
        logits = model(batch.tokens, batch.lengths).float()
        return functional.cross_entropy(
            logits, batch.labels, reduction="sum", label_smoothing=self.config.label_smoothing
        )

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        if not self.validation:
            return {}
        probabilities = self.classifier.predict_encoded(self.validation)
        chosen = probabilities[np.arange(len(probabilities)), self.validation_labels]
        return {
            "validation_accuracy": float((probabilities.argmax(1) == self.validation_labels).mean()),
            "validation_loss": float(-np.log(np.maximum(chosen, 1e-12)).mean()),
        }

    def describe(self, step: int) -> str:
        epoch, index = divmod(step, self.steps_per_epoch)
        rows = self._epoch(epoch)[index]
        return f"{step} (epoch {epoch}, texts {', '.join(self.where[row] for row in rows[:3])} …)"


def finetune(config: FinetuneConfig, out: str | Path, *, resume: bool = False) -> Outcome:
    """Fine-tune a classifier and leave a model directory in `out`, beside `config.yaml` and `metrics.jsonl`.

    Raises
    ------
    InputError: model or data cannot be used; `out` holds something else.
    LucidError: the loss is not finite, the disk is full.
    """
    out = Path(out)
    if not resume:
        require_vacant(out)
    task = classification_task(config.task)
    examples = read_split(config, task)
    names = task.discover_labels(examples["train"])
    labels: dict[Split, np.ndarray] = {part: task.label_ids(found, names) for part, found in examples.items()}
    compute = choose_compute(config.device, config.precision)
    classifier = build_classifier(config, names)
    classifier.model.to(compute.device)
    objective = ClassificationObjective(config, classifier, examples, labels)
    if not resume:
        steps = math.ceil(config.epochs * objective.steps_per_epoch)
        config = config.changed(loop=config.loop.changed(max_steps=config.loop.max_steps or steps))
        config.save(out / CONFIG)
    sizes = ", ".join(f"{len(found):,} {part}" for part, found in examples.items())
    say(f"{config.task}: {sizes}; labels {', '.join(names)}; {compute.device.type}, {compute.reason}")
    if long := sum(len(ids) > classifier.room for ids in objective.train):
        say(f"{long:,} texts are longer than {classifier.room:,} tokens: read in stretches of that length")
    outcome = Loop(classifier.model, objective, config.loop, compute, out).run(resume=resume)
    if outcome.stopped_by is None:
        with torch.inference_mode(), fast_products(compute.device):
            outcome.evaluation = objective.evaluate(classifier.model.eval())
        record = _provenance(config, classifier, outcome)
        save_model(classifier.model, out, classifier.tokenizer, provenance=record)
    return outcome


def classification_task(name: str) -> TextClassification:
    """Return the task called `name`.

    Raises
    ------
    InputError: there is none, or it is of a kind that a classifier cannot be tuned for.
    """
    task = tasks.get(name)
    if not isinstance(task, TextClassification):
        raise InputError(f"{name} is not a classification task", where="task")
    return task


def read_split(config: FinetuneConfig, task: TextClassification) -> dict[Split, list[LabelledText]]:
    """Read the labelled texts, drop repeated ones, and part them as pretraining does, by a hash of the text.

    Raises
    ------
    InputError: the data cannot be read, or none of it is left for training.
    """
    skipped: Counter[str] = Counter()
    found = read_examples(
        config.data,
        task,
        text_field=config.text_field,
        label_field=config.label_field,
        encoding=config.encoding,
        on_error=config.on_error,
        skipped=skipped,
    )
    parts: dict[Split, list[LabelledText]] = {"train": [], "validation": [], "test": []}
    seen: set[str] = set()
    for example in found:
        if example.text not in seen:
            seen.add(example.text)
            parts[split_of(example.text, config.validation, config.test)].append(example)
    if skipped or len(seen) < len(found):
        reasons = "".join(f", {count:,} skipped: {reason}" for reason, count in skipped.items())
        say(f"{config.data}: {len(found) - len(seen):,} repeated texts left out{reasons}")
    if not parts["train"]:
        raise InputError(
            f"none of its {len(seen)} texts is left to train on",
            where=config.data,
            fix="Hold out less (--validation, --test) or pass more data.",
        )
    return parts


def build_classifier(config: FinetuneConfig, labels: Sequence[str]) -> TextClassifier:
    """Put a fresh classification head on the pretrained backbone of `config.model`."""
    loaded = load_model(config.model)
    if not isinstance(loaded.model, LanguageModel) or loaded.tokenizer is None:
        raise InputError(
            "is not a pretrained language model with its tokenizer",
            where=config.model,
            fix="Pass what `lucidlm pretrain` made.",
        )
    shape = loaded.model.config.changed(dropout=config.dropout)
    model = SequenceClassifier(shape, labels, config.pooling, seed=config.loop.seed)
    model.model.load_state_dict(loaded.model.model.state_dict())
    return TextClassifier(model, loaded.tokenizer, config.max_length or shape.context_length)


def _provenance(config: FinetuneConfig, classifier: TextClassifier, outcome: Outcome) -> dict[str, Any]:
    return {
        "task": config.task,
        "data": config.data,
        "seed": config.loop.seed,
        "config": config.changed(max_length=classifier.max_length).model_dump(mode="json"),
        "metrics": describe_outcome(outcome),
        "machine": describe_machine().as_dict(),
    }
