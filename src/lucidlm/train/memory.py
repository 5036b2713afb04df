"""What a training step holds in memory, found without taking any of it.

The step is run, with the code of the real one, on tensors that have a shape and no content (PyTorch's fake tensors),
while the storages that come and go are counted. So there is no formula that would have to follow the model. Of many
blocks two are run, since all are alike.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lucidlm.core.amounts import size
from lucidlm.core.devices import Compute, free_memory
from lucidlm.core.errors import InputError
from lucidlm.core.matmul import fast_matmul
from lucidlm.model.config import ModelConfig
from lucidlm.model.flops import count_parameters
from lucidlm.model.heads import LanguageModel
from lucidlm.model.loss import chunk_rows
from lucidlm.train.config import OptimizerConfig
from lucidlm.train.optim import build_optimizer
from lucidlm.train.step import clip_gradients


@dataclass(frozen=True)
class StepShape:
    """What a training step reads.

    Parameters
    ----------
    rows, length: a micro-batch is (rows, length) tokens.
    accumulates: whether a step has several of them.
    counted: the share of positions that are predicted; 0: none are, a small head reads the states.
    """

    rows: int
    length: int
    accumulates: bool = False
    counted: float = 1.0


@dataclass(frozen=True)
class StepMemory:
    """Bytes that are held at the moment of a step that needs most.

    Parameters
    ----------
    weights, gradients, optimizer: what lasts.
    activations: all else: what the backward pass needs of the forward pass, and intermediate results.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return sum(self.parts().values())

    def parts(self) -> dict[str, int]:
        """Return the bytes of each part, by its name."""
        return {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer state": self.optimizer,
            "activations": self.activations,
        }


class _Storages(TorchDispatchMode):
    """Counts the bytes of the tensors that are made while it is entered, for as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.live -= self._sizes.pop(key)


Prepare = Callable[[nn.Module], object]
"""Makes of a model what is trained: freezes weights, adds adapters."""


def require_memory(
    shape: ModelConfig,
    step: StepShape,
    optimizer: OptimizerConfig,
    compute: Compute,
    prepare: Prepare = lambda model: None,
    *,
    loaded: bool = False,
) -> None:
    """Check that there is memory for a training step; see `step_memory`.

    What the allocator holds besides is not counted: what is refused here cannot fit.

    Parameters
    ----------
    loaded: whether the weights are in memory already.

    Raises
    ------
    InputError: there is not; its parts are named.
    """
    available = free_memory(compute.device)
    if _no_more_than(shape, step) <= available:
        return
    needed = step_memory(shape, step, optimizer, compute, prepare)
    if needed.total - (needed.weights if loaded else 0) <= available:
        return
    parts = ", ".join(f"{name} {size(value)}" for name, value in needed.parts().items())
    raise InputError(
        f"{size(available)} of memory are free, and a step of {step.rows} x {step.length} tokens at once needs "
        f"{size(needed.total)}: {parts}",
        fix="Take fewer or shorter samples at once, or a smaller model (`lucidlm plan` says what fits); --force starts it "
        "all the same.",
    )


def _no_more_than(shape: ModelConfig, step: StepShape) -> int:
    """Return bytes that a step needs in no case: where there are as many, it need not be traced, which takes seconds."""
    width = max(shape.embedding_dim, shape.num_heads * shape.head_dim)
    each = 32 * width + 8 * shape.ff_dim + 4 * shape.num_heads * step.length
    return 4 * (8 * count_parameters(shape) + (shape.num_layers + 2) * step.rows * step.length * each)


def step_memory(
    shape: ModelConfig,
    step: StepShape,
    optimizer: OptimizerConfig,
    compute: Compute,
    prepare: Prepare = lambda model: None,
) -> StepMemory:
    """Return what a training step of a model of this `shape` holds at most, on `compute`.

    A GPU's kernels are taken to keep what a CPU's keep; a compiled model keeps less.
    """
    one, two = (_passes(shape.changed(num_layers=layers), step, compute, prepare) for layers in (1, 2))
    passes = one + (two - one) * (shape.num_layers - 1)
    weights, gradients, state, update = _update(shape, optimizer, prepare)
    return StepMemory(weights, gradients, state, max(passes, update))


def _passes(shape: ModelConfig, step: StepShape, compute: Compute, prepare: Prepare) -> int:
    """Return the most bytes that the forward and the backward pass hold beside weights and gradients."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # starts PyTorch's compiler, which takes two seconds

    narrow = torch.autocast("cpu", compute.dtype) if compute.autocasts else nullcontext()
    with FakeTensorMode(), fast_matmul(torch.device("cpu")), _Storages() as storages:
        model = LanguageModel(shape, seed=None)
        prepare(model)
        lasting = storages.live + sum(_bytes(model.parameters(), trained_only=True))
        most = 0
        for _ in range(2 if step.accumulates else 1):
            tokens = torch.zeros(step.rows, step.length, dtype=torch.int64)
            storages.peak = 0
            with narrow:
                loss, head = _loss(model, tokens, step.counted, compute.device)
            most = max(most, storages.live + head)
            storages.peak = storages.live
            if loss.requires_grad:
                loss.backward()
            del loss
            most = max(most, storages.peak)
        return most - lasting


def _loss(model: LanguageModel, tokens: Tensor, counted: float, device: torch.device) -> tuple[Tensor, int]:
    """Return a loss of `tokens` (B, T), and the bytes that its head holds if it is not run here."""
    if not counted:
        return model.model(tokens).sum(), 0
    places = None if counted == 1 else torch.zeros(max(1, round(counted * tokens.numel())), dtype=torch.int64)
    if device.type == "cpu":
        return model.loss(tokens, tokens, places=places)[0], 0
    # On a GPU the head has larger chunks, and a kernel that needs a GPU.
    hidden, (vocab_size, width) = model.model(tokens), model.head.shape
    positions = tokens.numel() if places is None else len(places)
    logits = min(positions, chunk_rows(vocab_size, device)) * vocab_size
    return hidden.sum(), 2 * (logits + 2 * positions * width + 2 * vocab_size * width) + 4 * vocab_size * width


def _update(shape: ModelConfig, optimizer: OptimizerConfig, prepare: Prepare) -> tuple[int, int, int, int]:
    """Return the bytes of weights, gradients and the optimiser's state, and the most that an update holds beside them."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(), _Storages() as storages:
        model = LanguageModel(shape, seed=None)
        prepare(model)
        weights, gradients = sum(_bytes(model.parameters())), sum(_bytes(model.parameters(), trained_only=True))
        if not gradients:
            return weights, 0, 0, 0
        moved = build_optimizer(model, optimizer)
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
        moved.step()
        lasting = storages.live
        storages.peak = 0
        clip_gradients(model, 1.0)
        moved.step()
        return weights, gradients, lasting - weights - gradients, storages.peak - lasting


def _bytes(parameters: Iterable[Tensor], *, trained_only: bool = False) -> Iterable[int]:
    return (value.nbytes for value in parameters if value.requires_grad or not trained_only)
