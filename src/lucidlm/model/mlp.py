"""The feed-forward part of a block."""

from __future__ import annotations

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
    """Two layers with GELU, or with squared ReLU (So et al. 2021, arXiv:2109.08668)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.embedding_dim, config.ff_dim, bias=config.bias)
        self.down_proj = nn.Linear(config.ff_dim, config.embedding_dim, bias=config.bias)
        self.squares = config.activation == "relu2"

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (B, T, D) to (B, T, D)."""
        x = self.up_proj(x)
        return self.down_proj(functional.relu(x).square() if self.squares else functional.gelu(x))


def make_mlp(config: ModelConfig) -> nn.Module:
    """Return the MLP that `config` asks for."""
    return GatedMLP(config) if config.activation == "swiglu" else PlainMLP(config)
