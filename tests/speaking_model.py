"""A language model that says what it is told to, whatever it has read."""

from __future__ import annotations

from typing import Any

import torch

from lucidlm.model.config import ModelConfig
from lucidlm.model.generation import GenerationDefaults
from lucidlm.model.heads import LanguageModel


def saying(*tokens: int, ends: tuple[int, ...] = (), context: int = 96) -> LanguageModel:
    """A model that says `tokens` over and over, each after the one before, and the first after anything else."""
    shape: dict[str, Any] = {"embedding_dim": 32, "num_heads": 2, "ff_dim": 32, "num_layers": 1, "qk_norm": False}
    model = LanguageModel(ModelConfig(vocab_size=290, context_length=context, tied_embeddings=False, **shape)).eval()
    with torch.no_grad():
        for name, parameter in model.model.layers.named_parameters():
            if "norm" not in name:
                parameter.zero_()  # a token's state is its embedding
        table, head = model.model.embed_tokens.weight, model.head
        table.zero_()
        head.zero_()
        table[:, 0] = 1.0
        head[tokens[0], 0] = 1.0
        for place, (now, following) in enumerate(zip(tokens, [*tokens[1:], tokens[0]], strict=True), 1):
            table[now] = torch.nn.functional.one_hot(torch.tensor(place), 32).float()
            head[following, place] = 1.0
    model.generation = GenerationDefaults(ends, {})
    return model
