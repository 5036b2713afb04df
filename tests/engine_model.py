"""A small model for tests of the engine."""

from __future__ import annotations

from typing import Any

import torch

from lucidlm.inference.end_of_text import ends_of
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer


def varied_model(tokenizer: Tokenizer) -> LanguageModel:
    """Return a model that says something else at every step, and hardly ever that a text ends."""
    shape: dict[str, Any] = {"embedding_dim": 32, "num_heads": 4, "num_kv_heads": 2, "ff_dim": 48, "num_layers": 2}
    model = LanguageModel(ModelConfig(vocab_size=300, context_length=320, tied_embeddings=False, **shape))
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
        assert model.lm_head is not None
        model.lm_head.weight[list(ends_of(tokenizer, (), 300))] = 0
    return model.eval()
