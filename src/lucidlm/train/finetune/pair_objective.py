"""Fine-tuning of what reads two texts together: cross-entropy of their label, or squared error of their number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lucidlm.data.examples.records import ScoredPair
from lucidlm.data.split import Split
from lucidlm.predict.classifier import BaseClassifier
from lucidlm.predict.pair_classifier import BasePairClassifier, PairClassifier, PairScorer, pad_pairs
from lucidlm.tokenize.text_pairs import with_pairs
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.train.finetune.classification_objective import ClassificationObjective, TextBatch, drop_tokens
from lucidlm.train.finetune.config import RegressionConfig


class PairObjective(ClassificationObjective):
    """Cross-entropy of labelled pairs of texts."""

    classifier_type: ClassVar[type[BaseClassifier[Any]]] = PairClassifier

    @classmethod
    def prepare_tokenizer(cls, tokenizer: Tokenizer) -> Tokenizer:
        """Return the tokenizer with what ends a text, and what stands between two."""
        return with_pairs(tokenizer.with_end())

    def encode(self, examples: Sequence[Any]) -> list[int]:
        assert isinstance(self.predictor, BasePairClassifier)
        self.classifier = self.predictor
        texts, others = [example.text for example in examples], [example.other for example in examples]
        self.pairs = self.classifier.encode(texts, others)
        self.encode_labels(examples)
        room, around = self.classifier.max_tokens, self.classifier.frame.size
        return [min(len(first) + len(second), room) + around for first, second in self.pairs]

    def collate(self, rows: np.ndarray, generator: np.random.Generator) -> TextBatch:
        kept = [[drop_tokens(ids, self.config, generator) for ids in self.pairs[row]] for row in rows]
        windows = [self.classifier.window(*pair) for pair in kept]
        tokens, lengths, segments = pad_pairs(windows, self.padding_id)
        parts = (tokens, lengths, torch.from_numpy(self.labels[rows]), segments)
        return TextBatch(*(part.to(self.device) for part in parts))

    def report_long(self) -> list[str]:
        room = self.classifier.max_tokens
        if long := sum(len(first) + len(second) > room for first, second in self.pairs):
            return [f"{long:,} pairs are longer than {room:,} tokens: the longer text of each is cut"]
        return []

    def provenance(self) -> dict[str, Any]:
        """Return that the model reads pairs."""
        return {"pairs": True}


class PairScoreObjective(PairObjective):
    """Squared error of a number for each pair of texts."""

    classifier_type: ClassVar[type[BaseClassifier[Any]]] = PairScorer

    @classmethod
    def discover_labels(cls, config: RegressionConfig, task: Any, examples: dict[Split, list[Any]]) -> list[str]:
        """Return the name of the number."""
        return ["score"]

    def encode_labels(self, examples: Sequence[ScoredPair]) -> None:
        self.labels = np.array([example.score for example in examples], dtype=np.float32)

    def usual_monitor(self, first: str) -> str:
        return first

    def loss(self, model: nn.Module, batch: TextBatch) -> Tensor:
        found = model(batch.tokens, batch.lengths, batch.token_type_ids).float()[:, 0]
        return functional.mse_loss(found, batch.labels, reduction="sum")

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the task's metrics and the mean squared error on the validation pairs."""
        if not self.validation:
            return {}
        answers = self.predictions(self.validation)
        errors = [answer.value - example.score for answer, example in zip(answers, self.validation, strict=True)]
        return {**self.score(self.validation, answers), "validation_loss": float(np.mean(np.square(errors)))}

    def report(self) -> list[str]:
        low, high = self.labels.min(), self.labels.max()
        return [f"numbers from {low:g} to {high:g}, {self.labels.mean():.3g} on average", *self.report_long()]
