"""Models that the views are tried on."""

from __future__ import annotations

from pathlib import Path

import pytest

import lucidlm
from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def language(tiny_model: Path) -> LoadedModel:
    """A causal model of two layers."""
    return load_model(tiny_model)


@pytest.fixture(scope="session")
def judge_path(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, reviews_csv: Path) -> Path:
    """A classifier of reviews, tuned for a few steps."""
    path = tmp_path_factory.mktemp("judge") / "judge"
    lucidlm.finetune("sentiment", model=tiny_model, data=reviews_csv, out=path, max_steps=30)
    return path


@pytest.fixture(scope="module")
def judge(judge_path: Path) -> LoadedModel:
    return load_model(judge_path)


@pytest.fixture(scope="module")
def masked() -> LoadedModel:
    """A masked model with weights as they are drawn, whose head is linear."""
    tokenizer = Tokenizer.train_bpe(["the film was good and the plot was dull"] * 3, 290, exact=False)
    config = ModelConfig.masked(
        vocab_size=tokenizer.vocab_size, embedding_dim=16, num_heads=2, ff_dim=24, num_layers=2, context_length=32
    )
    return LoadedModel(LanguageModel(config).eval(), tokenizer, {"kind": "language", "provenance": {}})
