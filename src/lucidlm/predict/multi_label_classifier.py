"""Multi-label classification of texts: texts in, the labels that hold for each out, none or several."""

from __future__ import annotations

import numpy as np
import torch

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.data.examples.records import MultiLabelPrediction
from lucidlm.model.heads import SequenceClassifier
from lucidlm.predict.classifier import BaseTextClassifier
from lucidlm.tokenize.tokenizer import Tokenizer

UNTUNED = 0.5
"""The threshold of a label that none was chosen for."""


class MultiLabelClassifier(BaseTextClassifier[MultiLabelPrediction]):
    """A classifier that gives a text each label whose probability reaches the label's threshold.

    >>> tag = MultiLabelClassifier("tagger")
    >>> tag("Rain delays the final").chosen
    ('sport', 'weather')
    """

    problem_type = "multi_label_classification"

    thresholds: tuple[float, ...]
    """From which probability on each label is chosen, in the order of `labels`."""

    def _open(self, loaded: LoadedModel) -> None:
        super()._open(loaded)
        chosen = loaded.record["provenance"].get("thresholds", {})
        self.thresholds = tuple(float(chosen.get(label, UNTUNED)) for label in self.labels)

    def _set(self, model: SequenceClassifier, tokenizer: Tokenizer, max_length: int) -> None:
        super()._set(model, tokenizer, max_length)
        self.thresholds = (UNTUNED,) * len(self.labels)

    def activate(self, logits: np.ndarray) -> np.ndarray:
        return torch.from_numpy(logits).sigmoid().numpy()

    def answer(self, activated: list[float]) -> MultiLabelPrediction:
        return MultiLabelPrediction(tuple(self.labels), tuple(activated), self.thresholds)
