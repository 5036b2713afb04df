"""Checkpoints come back bit for bit, or say what is wrong with them."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lucidlm.core.errors import InputError, LucidError
from lucidlm.train import checkpoints as checkpoint
from lucidlm.train.checkpoints import forget_after, list_checkpoints, load_checkpoint, save_checkpoint, way_back

WEIGHTS = {"a": torch.randn(3, 4), "b": torch.tensor([1e-45, float("inf"), -0.0])}
OPTIMIZER: dict[str, Any] = {
    "members": [
        {
            "state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.randn(5)}, 12: {"momentum": torch.randn(2, 2)}},
            "param_groups": [{"lr": 0.1 + 0.2, "betas": (0.9, 0.95), "fused": True, "maximize": None, "params": [0]}],
        },
        {"state": {}, "param_groups": []},
    ]
}
STATE = {"step": 3, "tokens": 2**60, "wall": 1 / 3, "best": None}


def save(root: Path, step: int = 3, keep: int = 2) -> Path:
    return save_checkpoint(root, step, WEIGHTS, OPTIMIZER, {**STATE, "step": step}, keep)


def same(one: Any, other: Any) -> bool:
    """Return whether nested values are equal, tensors to the bit; a tuple may have become a list."""
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and one.numpy().tobytes() == other.numpy().tobytes()
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and one == other


def test_everything_comes_back_to_the_bit(tmp_path: Path) -> None:
    weights, optimizer, state = load_checkpoint(save(tmp_path))
    assert same(WEIGHTS, weights)
    assert same(OPTIMIZER, optimizer)
    assert state == STATE


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_real_optimiser_goes_on_as_if_nothing_had_happened(tmp_path: Path, name: str) -> None:
    from lucidlm.model.config import ModelConfig
    from lucidlm.model.heads import LanguageModel
    from lucidlm.train.optim import OptimizerConfig, build_optimizer

    shape = ModelConfig(vocab_size=16, embedding_dim=8, num_heads=2, ff_dim=16, num_layers=2, context_length=8)

    def steps(model: LanguageModel, optimizer: Any, first: int, last: int) -> None:
        for step in range(first, last):
            tokens = torch.randint(16, (2, 8), generator=torch.Generator().manual_seed(step))
            model.loss(tokens, tokens.roll(-1, 1))[0].backward()
            optimizer.set_scale(1 / (step + 1))
            optimizer.step()
            optimizer.zero_grad()

    straight = LanguageModel(shape)
    optimizer = build_optimizer(straight, OptimizerConfig(name=name))
    steps(straight, optimizer, 0, 3)
    save_checkpoint(tmp_path, 3, straight.state_dict(), optimizer.state_dict(), {}, 1)
    steps(straight, optimizer, 3, 6)

    resumed = LanguageModel(shape, seed=9)
    again = build_optimizer(resumed, OptimizerConfig(name=name))
    weights, state, _ = load_checkpoint(tmp_path / "step-000003")
    resumed.load_state_dict(weights)
    again.load_state_dict(state)
    steps(resumed, again, 3, 6)
    assert same(dict(straight.state_dict()), dict(resumed.state_dict()))


def test_nothing_in_it_is_a_pickle(tmp_path: Path) -> None:
    path = save(tmp_path)
    assert sorted(file.name for file in path.iterdir()) == [
        "manifest.json",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    for file in path.iterdir():
        assert file.read_bytes()[:1] not in (b"\x80", b"P")


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8):
        save(tmp_path, step, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000006", "step-000008"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000006", "step-000008"]


def test_the_newest_is_the_last_past_a_million_steps_too(tmp_path: Path) -> None:
    save(tmp_path, 999_999, keep=1)
    save(tmp_path, 1_000_000, keep=1)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-1000000"]


def test_half_a_checkpoint_does_not_count(tmp_path: Path) -> None:
    save(tmp_path, 2)
    shutil.copytree(save(tmp_path, 4), tmp_path / ".step-000006.part")
    (tmp_path / "step-000004" / "manifest.json").unlink()
    shutil.copytree(tmp_path / "step-000002", tmp_path / "step-000002.bak")
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000002"]


def test_none_at_all(tmp_path: Path) -> None:
    assert list_checkpoints(tmp_path / "nowhere") == []


# ---------------------------------------------------------------------- damage


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_damage_is_named_with_what_to_fall_back_on(tmp_path: Path, name: str, damage: str) -> None:
    save(tmp_path, 2)
    path = save(tmp_path, 4)
    content = bytearray((path / name).read_bytes())
    if damage == "remove":
        (path / name).unlink()
    elif damage == "truncate":
        (path / name).write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 0x10
        (path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"step-000004/{name}: .*Remove .*step-000004 to go on from step-000002"):
        load_checkpoint(path)
    shutil.rmtree(path)
    load_checkpoint(list_checkpoints(tmp_path)[-1])  # the advice holds


def test_damage_to_the_only_checkpoint(tmp_path: Path) -> None:
    path = save(tmp_path / "run" / "checkpoints")
    (path / "manifest.json").write_text("{")
    with pytest.raises(InputError, match=rf"manifest\.json: .*Remove {tmp_path / 'run'} to start again"):
        load_checkpoint(path)


# ---------------------------------------------------------------------- no space


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_disk_that_is_nearly_full_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 2)
    before = contents(tmp_path)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6, 1000))
    with pytest.raises(LucidError, match=r"needs .* of disk"):
        save(tmp_path, 4, keep=1)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("turn", [1, 2, 3, 4, 5])
def test_a_disk_that_fills_up_on_the_way_keeps_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    """Each of the five renames that end a checkpoint may be the one that fails."""
    save(tmp_path, 2)
    before = contents(tmp_path)
    replace, calls = os.replace, 0

    def refuse(source: Any, destination: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == turn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, destination)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(LucidError, match="no space left on the disk"):
        save(tmp_path, 4, keep=1)
    assert calls == turn
    assert contents(tmp_path) == before


def test_the_systems_refusal_inside_safetensors_is_told_plainly(tmp_path: Path) -> None:
    save(tmp_path, 2)
    before = contents(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    big = {"a": torch.zeros(200_000)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(LucidError, match="takes no file so large"):
            save_checkpoint(tmp_path, 4, big, {}, {}, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(tmp_path) == before


def test_an_older_try_at_the_same_step_is_replaced(tmp_path: Path) -> None:
    save(tmp_path, 4)
    (tmp_path / ".step-000004.part").mkdir()
    (tmp_path / ".step-000004.part" / "rubbish").write_text("")
    path = save(tmp_path, 4)
    load_checkpoint(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["step-000004"]


def test_a_snapshot_is_a_copy() -> None:
    layer = torch.nn.Linear(2, 2)
    kept = checkpoint.snapshot(layer)
    before = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight += 1
    assert torch.equal(kept["weight"], before)


# ---------------------------------------------------------------------- where a run may go back to


@pytest.mark.parametrize(("step", "to"), [(540, 400), (500, 400), (499, 300), (410, 300), (399, 300), (10_000, 500)])
def test_the_way_back_is_to_a_checkpoint_that_is_old_enough_or_the_oldest(tmp_path: Path, step: int, to: int) -> None:
    for saved in (300, 400, 500):
        save(tmp_path, saved, keep=3)
    assert way_back(tmp_path, step) == tmp_path / f"step-{to:06d}"
    assert way_back(tmp_path / "nothing", step) is None


def test_a_checkpoint_in_between_counts_only_as_the_newest(tmp_path: Path) -> None:
    def saved(step: int) -> list[str]:
        save_checkpoint(tmp_path, step, WEIGHTS, {}, {}, 2, 100)
        return [path.name for path in list_checkpoints(tmp_path)]

    assert saved(37) == ["step-000037"]
    assert way_back(tmp_path, 60, 100) is None
    assert saved(100) == ["step-000100"]
    assert saved(200) == ["step-000100", "step-000200"]
    assert saved(210) == ["step-000100", "step-000200", "step-000210"]
    assert saved(220) == ["step-000100", "step-000200", "step-000220"]
    assert way_back(tmp_path, 350, 100) == tmp_path / "step-000200"
    assert saved(300) == ["step-000200", "step-000300"]
    forget_after(tmp_path / "step-000200")
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000200"]
