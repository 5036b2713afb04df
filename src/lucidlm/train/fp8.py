"""Matrix products of blocks in fp8, for which data sheets of GPUs promise twice the speed of bf16.

Each matrix is scaled by its own largest value before it is rounded: E4M3 in the forward pass, E5M2 for gradients
(Micikevicius et al. 2022, arXiv:2209.05433). torchao does both. Weights stay in fp32, so that optimisers, shards and saved
models are as without it. Embeddings, norms, attention itself and the output head stay as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from lucidlm.core.errors import InputError
from lucidlm.core.extras import require_package
from lucidlm.model.transformer import Transformer

MULTIPLE = 16
"""What the units ask widths to be multiples of."""


def take_products_in_fp8(model: Transformer, *, emulated: bool = False) -> None:
    """Let the linear layers of all blocks of `model` compute in fp8, in place. Called before the blocks are compiled.

    Parameters
    ----------
    emulated: round as the units do, but multiply in a wider format: slow, for devices without them.

    Raises
    ------
    InputError: torchao is not installed, or no layer has widths that the units take.
    """
    require_package("torchao", "fp8", where="--precision fp8")
    if not any(_fits(module) for module in model.layers.modules()):
        raise InputError(
            f"no layer has widths that are multiples of {MULTIPLE}, which fp8 needs",
            where="--precision fp8",
            fix="Change the shape, or pass bf16.",
        )
    with _quiet():
        from torchao.float8 import Float8LinearConfig  # pyright: ignore[reportMissingImports]

        from lucidlm.train.fp8_linear import TrainedInFp8
    config = Float8LinearConfig(emulate=emulated)
    for parent in list(model.layers.modules()):
        for name, child in parent.named_children():
            if _fits(child):
                setattr(parent, name, TrainedInFp8.from_float(child, config))


def _fits(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and not (module.in_features % MULTIPLE or module.out_features % MULTIPLE)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what torchao says when it is imported: which kernels, for other formats, this machine has no use for."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
