"""Tiny models of transformers in the families that are known here, every weight of theirs random.

Fresh biases are zeros and fresh norms ones, which would hide one that is missing or taken for another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

transformers = pytest.importorskip(
    "transformers", reason="the peer of these tests is not installed: pip install transformers"
)

V, CONTEXT, PAD, END = 300, 32, 1, 0

ROTARY: dict[str, Any] = {
    "vocab_size": V,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": PAD,
    "bos_token_id": END,
    "eos_token_id": END,
}
GPT2: dict[str, Any] = {
    "vocab_size": V,
    "n_embd": 24,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": CONTEXT,
    "pad_token_id": PAD,
    "bos_token_id": END,
    "eos_token_id": END,
}
BERT: dict[str, Any] = {
    **{name: ROTARY[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")},
    "intermediate_size": 40,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": PAD,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


def randomise(model: Any, scale: float = 0.3) -> Any:
    """Draw every weight, those of norms around 1."""
    for index, (name, parameter) in enumerate(model.named_parameters()):
        drawn = scale * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
        is_norm = parameter.dim() == 1 and name.endswith("weight")
        parameter.data.copy_(drawn + 1 if is_norm else drawn)
    return model.eval()


def their(name: str, head: str, fields: dict[str, Any], path: Path | None = None) -> Any:
    """Return a model of transformers with random weights, saved at `path`."""
    config = getattr(transformers, f"{name}Config")(**fields)
    model = randomise(getattr(transformers, name + head)(config))
    if hasattr(model, "tie_weights"):
        model.tie_weights()
    if path is not None:
        model.save_pretrained(path)
    return model


def ids(rows: int = 3, length: int = 12, seed: int = 0) -> Tensor:
    return torch.randint(3, V, (rows, length), generator=torch.Generator().manual_seed(seed))


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
