"""What ranks know of themselves, and what they refuse, without starting any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.distributed import HashStore  # pyright: ignore[reportPrivateImportUsage]
from typer.testing import CliRunner

from lucidlm.cli.main import app
from lucidlm.core.devices import Compute
from lucidlm.core.errors import InputError, LucidError
from lucidlm.core.progress import console
from lucidlm.distributed.failure import explained, speaks_for_all
from lucidlm.distributed.ranks import ALONE, Ranks, join
from lucidlm.train.checkpoints import goes_on, require_fit, start_in
from lucidlm.train.optim import orthogonalise


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of the second of two ranks."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(console, "quiet", console.quiet)  # which joining changes
    return monkeypatch


def test_one_process_is_alone_and_waits_for_nobody() -> None:
    assert join("auto") is ALONE
    assert not distributed.is_initialized()
    assert ALONE.first
    assert ALONE.gather(1, 2.5) == [[1, 2.5]]
    assert ALONE.agreed("a") == "a"
    assert ALONE.map(lambda items: [item + 1 for item in items], [1, 2]) == [2, 3]


@pytest.mark.parametrize("rows", [0, 1, 3, 4, 7, 64])
@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_ranks_share_the_rows_of_a_batch_evenly_and_without_a_gap(rows: int, count: int) -> None:
    bounds = [Ranks(rank, count).bounds(rows) for rank in range(count)]
    assert [row for low, high in bounds for row in range(low, high)] == list(range(rows))
    sizes = [high - low for low, high in bounds]
    assert max(sizes) - min(sizes) <= 1


def test_every_item_is_mapped_by_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    items = list(range(7))
    shares: list[Any] = [[10 * item for item in items[rank::3]] for rank in range(3)]
    monkeypatch.setattr(Ranks, "gather_objects", lambda self, own: [*shares[:1], own, *shares[2:]])
    asked = []
    found = Ranks(1, 3).map(lambda own: asked.append(own) or [10 * item for item in own], items)
    assert asked == [[1, 4]]
    assert found == [10 * item for item in items]


def test_a_batch_that_ranks_cannot_share_is_refused() -> None:
    Ranks(0, 4).require_share(8, 4, "examples")
    with pytest.raises(
        InputError, match=r"a batch of 6 cannot be shared evenly by 4 ranks. Pass a multiple of 4, such as 4"
    ):
        Ranks(0, 4).require_share(6, 100, "examples")
    with pytest.raises(InputError, match=r"there are 4 ranks and 3 examples to learn from. Start fewer ranks"):
        Ranks(0, 4).require_share(8, 3, "examples")


def test_ranks_with_other_devices_or_formats_are_refused(monkeypatch: pytest.MonkeyPatch, cpu: Compute) -> None:
    found = [("cpu", "float32", "cpu"), ("cuda", "bfloat16", "H100"), ("cuda", "bfloat16", "H100")]
    monkeypatch.setattr(Ranks, "gather_objects", lambda self, own: found)
    with pytest.raises(InputError, match=r"rank 0 has cpu in float32, rank 1 has H100 in bfloat16. Use machines alike"):
        Ranks(0, 3).require_same(cpu)


def test_checkpoints_that_some_ranks_do_not_see_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ranks, "gather", lambda self, own: [[0.0], [1.0]])
    with pytest.raises(InputError, match="model: has checkpoints that not all ranks see"):
        Ranks(0, 2).require_one_view(False, Path("model"))


def test_an_environment_that_says_half_is_refused(torchrun: pytest.MonkeyPatch) -> None:
    torchrun.delenv("RANK")
    with pytest.raises(InputError, match="RANK: is not set, though WORLD_SIZE says that there are several ranks"):
        join("cpu")


def test_gpus_need_nccl_and_one_each(torchrun: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--device cuda:1: several ranks cannot share one GPU"):
        join("cuda:1")
    torchrun.setattr(distributed, "is_nccl_available", lambda: False)
    with pytest.raises(InputError, match="this PyTorch has no NCCL"):
        join("cuda")
    torchrun.setattr(distributed, "is_nccl_available", lambda: True)
    torchrun.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="this machine has 1 GPUs, and a rank of number 1 of its own"):
        join("cuda")


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("x"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_rank_out_of_memory_says_which_and_what_to_do(error: Exception) -> None:
    with (
        pytest.raises(LucidError, match=r"rank 3 of 4 is out of memory; all ranks stop. Pass a smaller --micro-batch"),
        explained(Ranks(3, 4)),
    ):
        raise error
    with pytest.raises(type(error)), explained(ALONE):
        raise error


def test_a_rank_that_lost_another_says_so() -> None:
    with (
        pytest.raises(LucidError, match=r"rank 0 of 2 has lost another rank.*Connection closed by peer"),
        explained(Ranks(0, 2)),
    ):
        raise RuntimeError("[/pytorch/gloo/transport/tcp/pair.cc:537] Connection closed by peer [127.0.0.1]:1234")
    with pytest.raises(RuntimeError, match="mat1 and mat2"), explained(Ranks(0, 2)):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_commands_for_one_process_refuse_several(torchrun: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(app, ["tasks"])
    assert isinstance(result.exception, InputError)
    assert "tasks runs in one process, and torchrun has started 2" in str(result.exception)


def test_without_a_store_each_rank_speaks(torchrun: pytest.MonkeyPatch) -> None:
    torchrun.delenv("MASTER_ADDR", raising=False)
    assert speaks_for_all()


def test_a_restarted_run_goes_on_or_begins_again(tmp_path: Path, torchrun: pytest.MonkeyPatch) -> None:
    out = tmp_path / "model"
    (out / "checkpoints").mkdir(parents=True)
    (out / "config.yaml").touch()
    with pytest.raises(InputError, match="holds a run already"):
        start_in(out)
    torchrun.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not goes_on(out, False)
    start_in(out)
    assert not out.exists()
    (out / "checkpoints" / "step-000005").mkdir(parents=True)
    (out / "checkpoints" / "step-000005" / "manifest.json").touch()
    assert goes_on(out, False)
    torchrun.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert not goes_on(out, False)
    assert goes_on(out, True)


def test_a_checkpoint_of_another_shape_is_refused() -> None:
    weights = {"a": torch.zeros(2, 3), "b": torch.zeros(4)}
    require_fit(weights, dict(weights), Path("step-000005"))
    with pytest.raises(
        InputError, match=r"step-000005: is of another model: of a it has shape \(2, 3\), .* shape \(3, 3\)"
    ):
        require_fit(weights, {**weights, "a": torch.zeros(3, 3)}, Path("step-000005"))
    with pytest.raises(InputError, match="of b it has no such weight"):
        require_fit({"a": weights["a"]}, weights, Path("step-000005"))


@pytest.fixture
def group() -> Iterator[None]:
    """A group of one."""
    distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_sharded_matrices_are_made_orthogonal_whole() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import distribute_tensor

    from lucidlm.distributed.sharded import map_matrices

    matrices = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    sharded = [distribute_tensor(matrix, init_device_mesh("cpu", (1,))) for matrix in matrices]
    found = map_matrices(lambda whole: orthogonalise(whole, 5), list(matrices), sharded)
    torch.testing.assert_close(torch.stack(found), orthogonalise(matrices, 5))
