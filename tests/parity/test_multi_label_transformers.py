"""Multi-label classifiers: transformers opens ours, we open theirs, and the logits are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.parity.tiny_models import BERT, ROTARY, close, ids, their, transformers

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.save import save_model
from lucidlm.model.heads import SequenceClassifier

FAMILIES: dict[str, dict[str, Any]] = {"Bert": BERT, "Qwen3": {**ROTARY, "head_dim": 8}}
NAMES = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
MULTI = {"problem_type": "multi_label_classification"}


@pytest.mark.parametrize("name", FAMILIES)
def test_theirs_opens_here_and_ours_there(name: str, tmp_path: Path) -> None:
    theirs = their(name, "ForSequenceClassification", {**FAMILIES[name], **NAMES, **MULTI}, tmp_path / "theirs")
    loaded = load_model(tmp_path / "theirs")
    assert isinstance(loaded.model, SequenceClassifier)
    assert loaded.model.problem_type == "multi_label_classification"
    save_model(loaded.model, tmp_path / "ours")
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours").eval()
    assert again.config.problem_type == "multi_label_classification"
    assert again.config.id2label == NAMES["id2label"]
    tokens = ids()
    with torch.no_grad():
        expected = theirs(tokens).logits
        close(load_model(tmp_path / "ours").model(tokens, torch.full((3,), 12)), expected)
        close(again(tokens).logits, expected)
        # It learns as it was tuned: the loss is that of each label by itself.
        labels = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 1, 1]])
        close(
            again(tokens, labels=labels).loss,
            torch.nn.functional.binary_cross_entropy_with_logits(expected, labels),
        )


def test_one_label_is_enough_where_labels_stand_by_themselves(tmp_path: Path) -> None:
    one = {"id2label": {0: "spam"}, "label2id": {"spam": 0}, "num_labels": 1}
    their("Bert", "ForSequenceClassification", {**BERT, **one, **MULTI}, tmp_path)
    model = load_model(tmp_path).model
    assert isinstance(model, SequenceClassifier)
    assert model.labels == ["spam"]
