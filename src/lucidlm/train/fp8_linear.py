"""The linear layer that is trained in fp8."""

# The package is an extra, which type checkers need not have.
# pyright: reportMissingImports=false

from __future__ import annotations

from torch import Tensor
from torch.nn import functional
from torchao.float8.float8_linear import Float8Linear


class TrainedInFp8(Float8Linear):
    """Computes in fp8 while it is trained, and as the saved model will where it is only read."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., out_features) for x (..., in_features)."""
        return super().forward(x) if self.training else functional.linear(x, self.weight, self.bias)
