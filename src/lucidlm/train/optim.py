"""Optimisers: Muon for the matrices inside the blocks, AdamW for everything else, or AdamW alone.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) replaces the momentum of each matrix by the nearest
orthogonal matrix, so that every direction of the matrix learns at the same pace. That matrix is found by a few
Newton-Schulz steps, which are matrix products only. Here matrices of equal shape take them together in one batched
product, in the number format that the device multiplies fast in: that makes Muon cheap on a CPU too.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn

from lucidlm.core.devices import has_bf16_units
from lucidlm.model.lora import is_adapter
from lucidlm.train.config import OptimizerConfig

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.875, -1.25, 0.375),
)
"""Coefficients of x, x³, x⁵ in each step (Amsel et al. 2025, arXiv:2505.16932); the last serves all further steps."""

SAFETY = 1.01
"""Room left for rounding: the first steps diverge on singular values above 1."""

BATCH_ELEMENTS = 2**26
"""Most matrix entries that are orthogonalised at once, which bounds the memory it takes."""

ABOVE = 2**30
"""The height of what lies above the blocks: the final norm and the heads."""


def orthogonalise(matrices: Tensor, steps: int) -> Tensor:
    """Return the orthogonal matrix nearest to each of `matrices` (N, rows, columns), approximately.

    Singular values of the result lie near 1 where those of a matrix were above a thousandth of its Frobenius norm.
    Products are taken in the dtype of `matrices`; the shape and dtype are kept.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices  # (N, r, c) with r <= c, so that the products x xᵀ are the small ones
    x = x / (torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True) * SAFETY + torch.finfo(x.dtype).tiny)
    for step in range(steps):
        a, b, c = POLAR_EXPRESS[min(step, len(POLAR_EXPRESS) - 1)]
        if step < steps - 1:
            a, b, c = a / SAFETY, b / SAFETY**3, c / SAFETY**5
        gram = x @ x.mT  # (N, r, r)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by Newton-Schulz steps, with Nesterov's look-ahead and decoupled weight decay.

    The step is scaled by 0.2 * sqrt(larger side), after which an entry moves about as far as AdamW would move it, so
    learning rate and weight decay mean the same for both (Liu et al. 2025, arXiv:2502.16982).

    Parameters
    ----------
    parameters: matrices, all on one device, whole or all sharded by rows (FSDP2), or groups of them with options of their
        own, as PyTorch's optimisers take.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        *,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        steps: int = 5,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "steps": steps})
        for group in self.param_groups:
            if shapes := [tuple(parameter.shape) for parameter in group["params"] if parameter.dim() != 2]:
                raise ValueError(f"Muon moves matrices only, given a parameter of shape {shapes[0]}")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for shape, parameters in by_shape.items():
                ranks = parameters[0].device_mesh.size() if _is_sharded(parameters[0]) else 1
                size = max(1, BATCH_ELEMENTS // shape.numel()) * ranks
                for start in range(0, len(parameters), size):
                    self._move(parameters[start : start + size], group)
        return loss

    def _move(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Move `parameters`, all of one shape."""
        dtype = product_dtype(parameters[0].device)
        ahead = [self._look_ahead(parameter, group["momentum"]).to(dtype) for parameter in parameters]
        updates = _orthogonal(ahead, parameters, group["steps"])
        step = -group["lr"] * 0.2 * math.sqrt(max(parameters[0].shape))
        for parameter, update in zip(parameters, updates, strict=True):
            own = own_part(parameter)
            own.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.to(own.dtype), alpha=step)

    def _look_ahead(self, parameter: Tensor, momentum: float) -> Tensor:
        """Update the running mean of the gradients; return where it will be if the next gradient is like this one.

        Of a sharded parameter it is this rank's part.
        """
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        gradient, mean = own_part(parameter.grad), own_part(state["momentum"])
        return gradient.lerp(mean.lerp_(gradient, 1 - momentum), momentum)


def _is_sharded(tensor: Any) -> TypeGuard[DTensor]:
    return hasattr(tensor, "to_local")  # only a DTensor has; to import it takes a second


def own_part(tensor: Tensor) -> Tensor:
    """Return a tensor, or of a sharded one the part that this rank has."""
    return tensor.to_local() if _is_sharded(tensor) else tensor


def _orthogonal(ahead: list[Tensor], parameters: list[Tensor], steps: int) -> Sequence[Tensor]:
    """Return the orthogonal matrices nearest to `ahead`, which is laid out as `parameters` are: of shards, shards.

    A shard has an orthogonal matrix nearest to it, too, but that is no part of the one nearest to the whole.
    """
    sharded = [parameter for parameter in parameters if _is_sharded(parameter)]
    if not sharded:
        return orthogonalise(torch.stack(ahead), steps).unbind()
    from lucidlm.distributed.sharded import map_matrices

    return map_matrices(lambda matrices: orthogonalise(matrices, steps), ahead, sharded)


def product_dtype(device: torch.device) -> torch.dtype:
    """Return the format for Newton-Schulz products: bf16 is enough for them, but slow on CPUs without units for it."""
    return torch.bfloat16 if device.type != "cpu" or has_bf16_units() else torch.float32


class Optimizers:
    """Several optimisers that a training loop drives as one."""

    def __init__(self, members: Sequence[torch.optim.Optimizer]) -> None:
        self.members = list(members)
        for group in self._groups():
            group["peak_lr"] = group["lr"]

    def set_scale(self, factor: float) -> None:
        """Set every learning rate to `factor` times its peak."""
        for group in self._groups():
            group["lr"] = group["peak_lr"] * factor

    def zero_grad(self) -> None:
        for member in self.members:
            member.zero_grad(set_to_none=True)

    def step(self) -> None:
        for member in self.members:
            member.step()

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on exactly where this stands."""
        return {"members": [member.state_dict() for member in self.members]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for member, saved in zip(self.members, state["members"], strict=True):
            member.load_state_dict(saved)

    def _groups(self) -> Iterable[dict[str, Any]]:
        return (group for member in self.members for group in member.param_groups)


def build_optimizer(model: nn.Module, config: OptimizerConfig, *, layer_decay: float = 1.0) -> Optimizers:
    """Return the optimiser of all parameters of `model` that are to be trained.

    Muon takes the matrices inside the blocks. Embeddings and heads are matrices too, but their rows stand for tokens
    or classes and are touched unevenly, so AdamW takes them, with the norms and biases. AdamW takes the factors of
    low-rank adapters too: what is to be near-orthogonal is a matrix's change, which is their product, not each of them.

    Parameters
    ----------
    layer_decay: factor on the learning rates from each block to the one below it, the embeddings lying lowest (Howard
        and Ruder 2018, arXiv:1801.06146); 1: all alike.
    """
    config = config.completed()
    assert config.learning_rate is not None
    assert config.muon_learning_rate is not None
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    heights = {name: _height(name) for name, _ in model.named_parameters()}
    top = 1 + max((height for height in heights.values() if height < ABOVE), default=0)
    matrices, rest = defaultdict(list), defaultdict(list)  # by their factor on the rate; and on the decay of weights
    for name, parameter in named:
        factor = layer_decay ** max(0, top - heights[name])
        if config.name == "muon" and ".layers." in f".{name}" and parameter.dim() == 2 and not is_adapter(name):
            matrices[factor].append(parameter)
        else:
            rest[parameter.dim() < 2, factor].append(parameter)
    members: list[torch.optim.Optimizer] = []
    if matrices:
        rate = config.muon_learning_rate
        members.append(
            Muon(
                [{"params": group, "lr": factor * rate} for factor, group in sorted(matrices.items())],
                rate,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
                steps=config.newton_schulz_steps,
            )
        )
    if rest:
        groups = [
            {
                "params": group,
                "lr": factor * config.learning_rate,
                "weight_decay": 0.0 if vectors else config.weight_decay,
            }
            for (vectors, factor), group in sorted(rest.items())
        ]
        members.append(torch.optim.AdamW(groups, config.learning_rate, config.betas, config.eps, fused=True))
    return Optimizers(members)


def _height(name: str) -> int:
    """Return where in the model a parameter stands: 0 for embeddings, 1 for the lowest block, ABOVE for the top."""
    if block := re.search(r"(?:^|\.)layers\.(\d+)\.", name):
        return 1 + int(block[1])
    return 0 if "embed_" in name else ABOVE
