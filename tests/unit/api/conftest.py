"""What the functions make of some reviews: prepared data, a model, a judge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import lucidlm
from lucidlm.api.results import EvaluationResult, PreparedData, TrainedModel

SHAPE: dict[str, Any] = {"num_layers": 2, "embedding_dim": 32, "num_heads": 2, "ff_dim": 64, "context": 64}


@dataclass(frozen=True)
class Made:
    """The folder that all of it is in, and what each call returned."""

    path: Path
    reviews: Path
    data: PreparedData
    model: TrainedModel
    judge: TrainedModel
    judged: EvaluationResult


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, reviews_csv: Path) -> Made:
    """One walk from text to a judged model; nobody may write into its folders."""
    path = tmp_path_factory.mktemp("api")
    reviews = path / "reviews.csv"
    reviews.write_bytes(reviews_csv.read_bytes())
    data = lucidlm.prepare(reviews, out=path / "data", vocab_size=400, validation=0.1, test=0.1)
    model = lucidlm.pretrain(path / "data", out=path / "model", **SHAPE, batch_size=4, max_steps=12, evaluations=2)
    judge = lucidlm.finetune(
        "sentiment", model=path / "model", data=reviews, out=path / "judge", max_steps=4, learning_rate=1e-3, seed=3
    )
    judged = lucidlm.evaluate(path / "judge", task="sentiment", data=reviews)
    return Made(path, reviews, data, model, judge, judged)
