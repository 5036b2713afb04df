"""Fine-tuning for multi-label classification: binary cross-entropy of each label by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lucidlm.data.examples.records import MultiLabelText
from lucidlm.data.split import Split
from lucidlm.metrics.multi_label_metrics import f1_thresholds
from lucidlm.predict.classifier import BaseClassifier
from lucidlm.predict.multi_label_classifier import MultiLabelClassifier
from lucidlm.tasks.multi_label import MultiLabelClassification
from lucidlm.train.finetune.classification_objective import ClassificationObjective, TextBatch
from lucidlm.train.finetune.config import RegressionConfig


class MultiLabelObjective(ClassificationObjective):
    """Mean binary cross-entropy of the labels, and a threshold for each, chosen on the validation texts.

    Label weights, if any, make the texts that have a label weigh as much as those that have it not.
    """

    classifier_type: ClassVar[type[BaseClassifier[Any]]] = MultiLabelClassifier

    @classmethod
    def discover_labels(
        cls, config: RegressionConfig, task: MultiLabelClassification, examples: dict[Split, list[MultiLabelText]]
    ) -> list[str]:
        """Return the labels of all the data: where chance holds out a rare label's every text, it is still one to know."""
        own = examples["train"] + examples["test"]
        labels = task.discover_labels(own if config.validation_data else own + examples["validation"])
        task.label_ids(examples["validation"], labels)
        return labels

    def encode_labels(self, examples: Sequence[MultiLabelText]) -> None:
        assert isinstance(self.task, MultiLabelClassification)
        self.labels = self.task.label_ids(examples, self.classifier.labels).astype(np.float32)  # (n, k)
        having, weights = self.labels.sum(0), np.ones((2, self.labels.shape[1]))
        if self.config.class_weights == "balanced":
            weights = len(self.labels) / (2 * np.maximum([len(self.labels) - having, having], 1))
        self.unseen = [label for label, count in zip(self.classifier.labels, having, strict=True) if not count]
        self.weights = torch.tensor(weights, dtype=torch.float32)  # (2, k): where it is not, where it is

    def usual_monitor(self, first: str) -> str:
        """Return macro-F1 for weighted labels, since micro-F1 hardly depends on rare ones."""
        return "macro_f1" if self.config.class_weights == "balanced" else first

    def loss(self, model: nn.Module, batch: TextBatch) -> Tensor:
        logits, smoothing = model(batch.tokens, batch.lengths).float(), self.config.label_smoothing
        without, having = self.weights.to(logits.device)
        return functional.binary_cross_entropy_with_logits(
            logits,
            batch.labels * (1 - smoothing) + smoothing / 2,
            torch.where(batch.labels > 0, having, without),
            reduction="sum",
        )

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Choose the thresholds on the validation texts; return the task's metrics and the mean loss on these."""
        if not self.validation:
            return {}
        assert isinstance(self.task, MultiLabelClassification)
        truth = self.task.label_ids(self.validation, self.classifier.labels)
        found = np.array([answer.probabilities for answer in self.predictions(self.validation)])
        self.classifier.thresholds = tuple(f1_thresholds(truth, found).tolist())
        answers = [self.classifier.answer(row) for row in found.tolist()]
        loss = float(-np.log(np.maximum(np.where(truth, found, 1 - found), 1e-12)).mean())
        return {**self.score(self.validation, answers), "validation_loss": loss}

    def report(self) -> list[str]:
        lines = [f"labels {', '.join(self.classifier.labels)}"]
        if self.unseen:
            lines.append(f"labels that no training text has, so that they are never chosen: {', '.join(self.unseen)}")
        return [*lines, *self.report_long()]

    def provenance(self) -> dict[str, Any]:
        """Return the threshold of each label."""
        return {"thresholds": dict(zip(self.classifier.labels, self.classifier.thresholds, strict=True))}
