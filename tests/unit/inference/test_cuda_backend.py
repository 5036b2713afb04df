"""What of the CUDA backend needs no GPU: which rows a graph has, what it reads, sizes, and what happens where it fails."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from lucidlm.inference.engine import cuda_backend
from lucidlm.inference.engine.backend import Stretch
from lucidlm.inference.engine.cuda_backend import CudaBackend, StepInputs, bucket, why_not
from lucidlm.inference.engine.launching import Launch
from lucidlm.inference.engine.torch_backend import BLOCK, TorchBackend
from lucidlm.inference.sampler import _draw_in_one_sum, draw
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel

STRETCHES = [
    Stretch([5], 0, [3]),
    Stretch([7, 8, 9], 0, [0], wanted=2),
    Stretch([6], 40, [1, 2]),
    Stretch(list(range(40)), 0, [4, 5]),
    Stretch([4], 1, [6]),
]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    shape: dict[str, Any] = {"embedding_dim": 32, "num_heads": 4, "num_kv_heads": 2, "ff_dim": 48, "num_layers": 2}
    return LanguageModel(ModelConfig(vocab_size=60, context_length=128, **shape)).eval()


class Halved(CudaBackend):
    """Steps of single tokens are computed by PyTorch, apart from the others."""

    decoded = 0

    def _decode(self, stretches: Sequence[Stretch]) -> Tensor:
        self.decoded += len(stretches)
        return TorchBackend.read(self, stretches)


class Failing(CudaBackend):
    def _decode(self, stretches: Sequence[Stretch]) -> Tensor:
        raise RuntimeError("no such compiler")


def test_drawing_in_one_sum_draws_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(40, 1000, generator=generator)
    logits[:, ::3] = -math.inf
    noise = torch.rand(40, dtype=torch.float64, generator=generator)
    assert torch.equal(_draw_in_one_sum(logits, noise), draw(logits, noise))
    assert torch.equal(_draw_in_one_sum(logits[:1], noise[:1]), draw(logits[:1], noise[:1]))


def test_graphs_have_a_power_of_two_rows() -> None:
    assert [bucket(rows) for rows in (1, 2, 3, 4, 5, 64, 65, 128)] == [1, 2, 4, 4, 8, 64, 128, 128]


@pytest.mark.parametrize("most", [2, 128])
@torch.inference_mode()
def test_logits_of_a_mixed_step_stand_in_the_order_asked_for(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(cuda_backend, "MOST_ROWS", most)
    backend, exact = Halved(model, 8), TorchBackend(model, 8)
    for one in (backend, exact):  # what stands before the second tokens
        TorchBackend.read(one, [Stretch(list(range(40)), 0, [1, 2]), Stretch([3], 0, [6])])
    assert torch.allclose(backend.read(STRETCHES), exact.read(STRETCHES), atol=1e-5)
    assert backend.decoded == 3


@torch.inference_mode()
def test_where_a_graph_fails_pytorch_computes_and_that_is_said_once(
    model: LanguageModel, capsys: pytest.CaptureFixture[str]
) -> None:
    backend, exact = Failing(model, 8), TorchBackend(model, 8)
    for stretches in (STRETCHES[:2], STRETCHES[:1], STRETCHES[1:2]):
        assert torch.equal(backend.read(stretches), exact.read(stretches))
    said = "".join(capsys.readouterr())
    assert said.count("no such compiler") == 1


def test_a_step_reads_tokens_places_and_blocks() -> None:
    inputs = StepInputs(4, 3, pinned=False)
    scalars, table = StepInputs.parts(inputs.buffer, 4)
    assert scalars[2].tolist() == [-1] * 4
    single = [one for one in STRETCHES if len(one.tokens) == 1]
    inputs.fill(single)
    assert scalars.tolist() == [[5, 6, 4, 0], [0, 40, 1, 0], [3 * BLOCK, 2 * BLOCK + 8, 6 * BLOCK + 1, -1]]
    assert (table[0, 0], table[1, :2].tolist(), table[2, 0]) == (3, [1, 2], 6)
    # A sequence fewer: the row it had is kept nowhere. Blocks beyond the token, taken for a draft, do not matter.
    inputs.fill([Stretch([9], 33, [6, 1, 7])])
    assert (scalars[:, 0].tolist(), table[0].tolist()) == ([9, 33, BLOCK + 1], [6, 1, 7])
    assert scalars[2, 1:].tolist() == [-1] * 3


@pytest.mark.parametrize("rows", [1, 2, 16, 32, 64, 128])
@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("much", [True, False])
def test_launches_cover_all_rows_in_sizes_that_kernels_take(rows: int, itemsize: int, much: bool) -> None:
    launch = Launch(rows, itemsize, much, early=False)
    assert launch.tile * launch.tiles >= rows
    for depth in (8, 576, 1536, 5000):
        for step in (launch.step(depth), launch.step_of_logits(depth), launch.step_of_heads(depth, 64)):
            assert step >= 16
            assert step & (step - 1) == 0
            assert step < 2 * max(depth, 16)
    if launch.tile > 1:
        assert launch.columns >= 16  # products of matrix units


def test_what_the_kernels_cannot_run_is_said(model: LanguageModel) -> None:
    assert why_not(model) is not None  # it is on a CPU
