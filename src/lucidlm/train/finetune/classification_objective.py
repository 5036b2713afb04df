"""Fine-tuning for classification: cross-entropy of the labels, with a new head on a pretrained backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.data.split import Split
from lucidlm.model.heads import SequenceClassifier
from lucidlm.predict.batching import pad
from lucidlm.predict.classifier import BaseClassifier, BaseTextClassifier, TextClassifier
from lucidlm.tasks.text_classification import TextClassification
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.train.finetune.backbone import backbone_config, pretrained_backbone
from lucidlm.train.finetune.config import ClassificationConfig, RegressionConfig, TextClassificationConfig
from lucidlm.train.finetune.objective import TaskObjective, random_window
from lucidlm.train.finetune.wide_branch import fit_wide_branch

OUT_OF_BALANCE = 0.25
"""A label with a smaller share of the commonest label's examples hardly shows in accuracy, so macro-F1 is monitored."""


@dataclass
class TextBatch:
    """Token ids (B, T) int64 padded on the right, their lengths (B,), and label numbers (B,) int64.

    Of several labels a text, `labels` says which there are, float32 (B, labels); of pairs they may be numbers, float32
    (B,), and `token_type_ids` (B, T) int64 are the segments of the tokens.
    """

    tokens: Tensor
    lengths: Tensor
    labels: Tensor
    token_type_ids: Tensor | None = None


class ClassificationObjective(TaskObjective[ClassificationConfig, Any, TextBatch]):
    """Cross-entropy of labelled texts.

    Training reads a random window of a text that is longer than the model's context; prediction reads all its windows.
    Label weights, if any, average to one over the training texts.
    """

    head: ClassVar[tuple[str, ...]] = ("score", "dense", "classifier")
    measures_loss: ClassVar[bool] = True
    classifier_type: ClassVar[type[BaseClassifier[Any]]] = TextClassifier

    classifier: Any
    """The predictor, which is of that type."""

    @classmethod
    def build(
        cls,
        config: ClassificationConfig,
        task: Any,
        loaded: LoadedModel,
        examples: dict[Split, list[Any]],
        device: torch.device,
    ) -> Self:
        """Put a new classification head on the pretrained backbone.

        Raises
        ------
        InputError: the training texts have one label only, or a label of the validation texts is not among theirs.
        """
        labels = cls.discover_labels(config, task, examples)
        backbone, tokenizer = pretrained_backbone(loaded, config.model)
        shape = backbone_config(backbone.config, config)
        tokenizer = cls.prepare_tokenizer(tokenizer)
        model = SequenceClassifier(
            shape,
            labels,
            config.pooling or "mean",
            seed=config.loop.seed,
            pad_id=tokenizer.pad_id,
            problem_type=cls.classifier_type.problem_type,
        )
        if shape.causal:
            # All labels begin with the same chance: a causal model's states may be so large that a head drawn at random is
            # sure of one of them, and the first steps would change the backbone to unlearn that.
            nn.init.zeros_(model.score.weight)
        model.model.load_state_dict(backbone.state_dict())
        length = config.max_length or shape.context_length
        classifier = cls.classifier_type.from_model(model.to(device), tokenizer, length)
        return cls(config, task, examples, model, tokenizer, classifier)

    @classmethod
    def prepare_tokenizer(cls, tokenizer: Tokenizer) -> Tokenizer:
        """Return the tokenizer with what ends a text, where its class may be read."""
        return tokenizer.with_end()

    @classmethod
    def discover_labels(cls, config: RegressionConfig, task: Any, examples: dict[Split, list[Any]]) -> list[str]:
        """Return the names of the labels to learn.

        Raises
        ------
        InputError: there are too few, or a label of the validation examples is not among them.
        """
        labels = task.discover_labels(examples["train"])
        task.label_ids(examples["validation"], labels)
        return labels

    def encode(self, examples: Sequence[Any]) -> list[int]:
        assert isinstance(self.predictor, BaseTextClassifier)
        self.classifier = self.predictor
        self.ids = self.classifier.encode([example.text for example in examples])
        self.encode_labels(examples)
        return [min(len(ids), self.classifier.max_tokens) + 1 for ids in self.ids]

    def encode_labels(self, examples: Sequence[Any]) -> None:
        """Keep what the texts' labels are, and how they weigh."""
        assert isinstance(self.task, TextClassification)
        self.labels = self.task.label_ids(examples, self.classifier.labels)
        counts = np.bincount(self.labels, minlength=len(self.classifier.labels))
        self.balance = counts.min() / counts.max()
        weights = len(self.labels) / (len(counts) * counts) if self.config.class_weights == "balanced" else counts**0.0
        self.weights = torch.tensor(weights, dtype=torch.float32)

    def keep(self, share: float) -> None:
        super().keep(share)
        self.labels = self.labels[: len(self.train)]

    def usual_monitor(self, first: str) -> str:
        """Return macro-F1 for weighted or imbalanced labels, since accuracy hardly depends on rare ones."""
        return "macro_f1" if self.config.class_weights == "balanced" or self.balance < OUT_OF_BALANCE else first

    def collate(self, rows: np.ndarray, generator: np.random.Generator) -> TextBatch:
        windows = [self.classifier.window(self._window(self.ids[row], generator)) for row in rows]
        parts = (*pad(windows, self.padding_id), torch.from_numpy(self.labels[rows]))
        return TextBatch(*(part.to(self.device) for part in parts))

    def _window(self, ids: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Return a random window of a text that fits, after token dropout."""
        return drop_tokens(random_window(ids, self.classifier.max_tokens, generator), self.config, generator)

    def counted(self, batch: TextBatch) -> int:
        return batch.labels.numel()

    def tokens(self, batch: TextBatch) -> int:
        return int(batch.lengths.sum())

    def loss(self, model: nn.Module, batch: TextBatch) -> Tensor:
        logits = model(batch.tokens, batch.lengths, batch.token_type_ids).float()
        smoothing, weights = self.config.label_smoothing, self.weights.to(logits.device)
        return functional.cross_entropy(logits, batch.labels, weights, reduction="sum", label_smoothing=smoothing)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the task's metrics and the mean loss on the validation texts."""
        return self._judged(self.predictions(self.validation)) if self.validation else {}

    def _judged(self, answers: Sequence[Any]) -> dict[str, float]:
        """Return the figures of answers to the validation texts."""
        assert isinstance(self.task, TextClassification)
        truth = self.task.label_ids(self.validation, self.classifier.labels)
        chosen = np.array([answer.probabilities[label] for answer, label in zip(answers, truth, strict=True)])
        loss = float(-np.log(np.maximum(chosen, 1e-12)).mean())
        return {**self.score(self.validation, answers), "validation_loss": loss}

    def finish(self, model: nn.Module) -> tuple[list[str], dict[str, float]]:
        """Put counted n-grams beside the Transformer, if the settings ask for them, and judge both together."""
        if not (isinstance(self.config, TextClassificationConfig) and self.config.wide):
            return super().finish(model)
        assert isinstance(self.task, TextClassification)
        labels = self.classifier.labels
        held_out = [example.text for example in self.validation]
        truth = self.task.label_ids(self.validation, labels)
        texts, deep = [example.text for example in self.train], np.zeros((len(held_out), len(labels)))
        if held_out:
            deep[:] = self.ranks.map(self.classifier.deep_logits, held_out)
        branch = fit_wide_branch(texts, self.labels, len(labels), held_out, deep, truth)
        self.classifier.model.wide = branch
        count = sum(len(table.ngrams) for table in branch.ngrams.tables)
        scales = f"its logits count {branch.deep_scale:.2f}, theirs {branch.wide_scale:.2f}"
        line = f"wide: {count:,} n-grams beside the Transformer; {scales}"
        return [line], self._judged(self.classifier.answers(branch.add(deep, held_out))) if held_out else {}

    def report(self) -> list[str]:
        lines = [f"labels {', '.join(self.classifier.labels)}"]
        if self.balance < OUT_OF_BALANCE:
            lines.append(
                f"the commonest label has {1 / self.balance:,.0f} times the examples of the rarest: "
                f"the best weights are chosen by {self.monitor.replace('_', ' ')} (--monitor)"
            )
        return [*lines, *self.report_long()]

    def report_long(self) -> list[str]:
        """Return a line on the texts that are longer than a window, if there are any."""
        max_tokens = self.classifier.max_tokens
        if long := sum(len(ids) > max_tokens for ids in self.ids):
            return [f"{long:,} texts are longer than {max_tokens:,} tokens: read in stretches of that length"]
        return []


def drop_tokens(ids: np.ndarray, config: RegressionConfig, generator: np.random.Generator) -> np.ndarray:
    """Return `ids` (n,) without the share of them that token dropout leaves out."""
    return ids[generator.random(len(ids)) >= config.token_dropout] if config.token_dropout else ids
