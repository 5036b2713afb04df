"""On NVIDIA GPUs: steps in which sequences get a token each are CUDA graphs of our own kernels; prompts are PyTorch's.

A small model's step is a few hundred short kernels, and launching them one by one from Python takes longer than they run.
A graph is recorded once for each number of sequences, rounded up, and replayed; what changes from step to step, tokens,
positions and blocks, is read from one buffer.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lucidlm.core.progress import log
from lucidlm.inference.engine.backend import Stretch
from lucidlm.inference.engine.torch_backend import BLOCK, TorchBackend
from lucidlm.model.heads import LanguageModel

if TYPE_CHECKING:
    from lucidlm.inference.engine.decode_step import DecodeStep

MOST_ROWS = 128
"""Sequences of one graph; more of them are read by several."""


def why_not(model: LanguageModel) -> str | None:
    """Return why the kernels cannot run `model`; None: they can."""
    shape, kind = model.config, model.head.dtype
    if find_spec("triton") is None:
        return "the package triton is not installed"
    if model.head.device.type != "cuda" or torch.cuda.get_device_capability(model.head.device) < (8, 0):
        return "they are for NVIDIA GPUs of compute capability 8.0 or more"
    if kind not in (torch.float32, torch.bfloat16):
        return f"they compute in bf16 or fp32, not in {kind}".replace("torch.", "")
    arrangement = shape.norm, shape.position, shape.activation, shape.bias, shape.post_norm, shape.token_types
    if arrangement != ("rms", "rotary", "swiglu", False, False, 0) or any(
        type(module) is not torch.nn.Linear for name, module in model.model.named_modules() if name.endswith("_proj")
    ):
        return "they are for the arrangement of Llama, Qwen2 and Qwen3, without adapters"
    if any(name.endswith("mlp.down_proj.bias") for name, _ in model.named_parameters()):
        return "a steering vector is added"
    return None


def bucket(rows: int) -> int:
    """Return how many rows the graph for `rows` sequences has: the next power of two."""
    return 1 << (rows - 1).bit_length()


class CudaBackend(TorchBackend):
    """A model on an NVIDIA GPU that `why_not` has nothing against, with its weights as they are now; see `Backend`.

    Where recording a graph fails, it says so and PyTorch computes from then on.
    """

    def __init__(self, model: LanguageModel, blocks: int) -> None:
        super().__init__(model, blocks)
        self._graphs: dict[int, _Graph] = {}
        self._step: DecodeStep | None = None
        self.works = True
        """Whether graphs could be recorded so far."""

    def read(self, stretches: Sequence[Stretch]) -> Tensor:
        """See `Backend.read`."""
        # A draft's tokens are rows of one step: its keys and values are kept before any of them is attended to.
        whole = [place for place, one in enumerate(stretches) if len(one.tokens) == one.wanted]
        rows = [row for place in whole for row in _single(stretches[place])]
        if not rows or not self.works:
            return super().read(stretches)
        parts = [rows[start : start + MOST_ROWS] for start in range(0, len(rows), MOST_ROWS)]
        try:
            logits = [self._decode(part) for part in parts]
        except Exception as error:  # whatever a compiler or a driver says: PyTorch can do it too
            log(f"no CUDA graphs, PyTorch writes token by token: {type(error).__name__}: {error}")
            self.works = False
            self._graphs.clear()
            return super().read(stretches)
        rest = sorted(set(range(len(stretches))) - set(whole))
        if not rest and len(parts) == 1:
            return logits[0]
        if rest:
            logits.append(super().read([stretches[place] for place in rest]))
        return torch.cat(logits)[_rows_in_order(stretches, whole + rest)]

    def _decode(self, stretches: Sequence[Stretch]) -> Tensor:
        """Return the logits (n, V) of stretches of a token each, in memory that the next call with as many writes to."""
        rows = bucket(len(stretches))
        if rows not in self._graphs:
            if self._step is None:
                from lucidlm.inference.engine.decode_step import DecodeStep

                self._step = DecodeStep(self.model, [pool.held_on(self.model) for pool in self._layers])
            self._graphs[rows] = _Graph(self._step, rows)
        return self._graphs[rows].replay(stretches)


def _single(stretch: Stretch) -> list[Stretch]:
    """Return a stretch as stretches of a token each."""
    return [Stretch([token], stretch.start + place, stretch.blocks) for place, token in enumerate(stretch.tokens)]


def _rows_in_order(stretches: Sequence[Stretch], order: Sequence[int]) -> list[int]:
    """Return which rows of logits, those of `stretches` in this order, stand in theirs."""
    starts, place = [0] * len(stretches), 0
    for index in order:
        starts[index], place = place, place + stretches[index].wanted
    return [row for start, one in zip(starts, stretches, strict=True) for row in range(start, start + one.wanted)]


class StepInputs:
    """What a step reads that the step before did not: a buffer of the host, int32, with rows for so many sequences.

    Parameters
    ----------
    columns: blocks of the longest sequence.
    """

    def __init__(self, rows: int, columns: int, *, pinned: bool) -> None:
        self.buffer = torch.zeros(rows * (3 + columns), dtype=torch.int32, pin_memory=pinned)
        self._scalars, self._table = (part.numpy() for part in self.parts(self.buffer, rows))
        self._blocks: list[list[int]] = [[] for _ in range(rows)]  # what stands in each row of the table
        self._scalars[2] = -1

    @staticmethod
    def parts(buffer: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """Return tokens, positions and slots (3, rows), and the table of blocks (rows, columns), within a buffer."""
        return buffer[: 3 * rows].view(3, rows), buffer[3 * rows :].view(rows, -1)

    def fill(self, stretches: Sequence[Stretch]) -> None:
        """Write stretches of a token each; rows that are left over get no slot, so they are not kept."""
        count = len(stretches)
        self._scalars[:, :count] = np.array(
            [
                (one.tokens[0], one.start, one.blocks[one.start // BLOCK] * BLOCK + one.start % BLOCK)
                for one in stretches
            ]
        ).T
        self._scalars[1, count:], self._scalars[2, count:] = 0, -1
        for row, one in enumerate(stretches):
            if one.blocks != self._blocks[row]:
                self._table[row, : len(one.blocks)] = self._blocks[row] = one.blocks


class _Graph:
    """A recorded step for so many sequences."""

    def __init__(self, step: DecodeStep, rows: int) -> None:
        columns = -(-step.config.context_length // BLOCK)
        self._inputs = StepInputs(rows, columns, pinned=True)
        there = self._inputs.buffer.to(step.device)
        scalars, table = StepInputs.parts(there, rows)
        step.run(scalars, table)  # compiles the kernels
        torch.cuda.synchronize(step.device)
        self._graph, self._done = torch.cuda.CUDAGraph(), torch.cuda.Event()
        with torch.cuda.device(step.device), torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            there.copy_(self._inputs.buffer, non_blocking=True)
            self._logits = step.run(scalars, table)
        self._held = there

    def replay(self, stretches: Sequence[Stretch]) -> Tensor:
        """Return logits (n, V) fp32, in memory that the next call writes to."""
        self._done.synchronize()  # the step before may not have read its inputs yet
        self._inputs.fill(stretches)
        self._graph.replay()
        self._done.record()
        return self._logits[: len(stretches)]
