"""The feed-forward part of a block."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from lucidlm.model.config import ModelConfig


class GatedMLP(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.embedding_dim, config.ff_dim, bias=config.bias)
        self.up_proj = nn.Linear(config.embedding_dim, config.ff_dim, bias=config.bias)
        self.down_proj = nn.Linear(config.ff_dim, config.embedding_dim, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (B, T, D) to (B, T, D)."""
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class PlainMLP(nn.Module):
    """Two layers with GELU between (exact, or GPT-2's tanh form), or squared ReLU (So et al. 2021, arXiv:2109.08668)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.embedding_dim, config.ff_dim, bias=config.bias)
        self.down_proj = nn.Linear(config.ff_dim, config.embedding_dim, bias=config.bias)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (B, T, D) to (B, T, D)."""
        return self.down_proj(self.activation(self.up_proj(x)))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "relu2": lambda x: functional.relu(x).square(),
}


def make_mlp(config: ModelConfig) -> nn.Module:
    """Return the MLP that `config` asks for."""
    return GatedMLP(config) if config.activation == "swiglu" else PlainMLP(config)
