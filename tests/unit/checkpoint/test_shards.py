"""Writing safetensors one tensor after another: the library reads what was written, and little is in memory at once."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from lucidlm.checkpoint import shards
from lucidlm.checkpoint.shards import save_weights


def tensors() -> dict[str, Tensor]:
    """Of all the kinds that are stored, of odd sizes, and views."""
    whole = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    return {
        "bytes": torch.arange(-7, 8, dtype=torch.int8),
        "transposed": whole.T,
        "part": whole[2:4],
        "half": whole[0].half(),
        "brain": whole[:3, :3].bfloat16(),
        "double": whole[1].double(),
        "scalar": torch.tensor(2.5),
        "名": torch.ones(3),
    }


@pytest.mark.parametrize("most", [10**9, 64, 1])
def test_the_library_reads_it(most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", most)
    shapes = {name: value.to("meta") for name, value in tensors().items()}
    backwards = reversed(tensors().items())
    names = save_weights(shapes, backwards, tmp_path)
    assert sorted(names) == sorted(path.name for path in tmp_path.iterdir())
    files = [name for name in names if name.endswith(".safetensors")]
    assert len(files) > 1 or most > 64
    found = {key: (file, value) for file in files for key, value in load_file(tmp_path / file).items()}
    assert found.keys() == shapes.keys()
    for name, value in tensors().items():
        assert found[name][1].dtype == value.dtype
        assert torch.equal(found[name][1], value)
    for file in files:
        with safe_open(tmp_path / file, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}
    if len(files) > 1:
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        assert index["weight_map"] == {name: file for name, (file, _) in found.items()}


def test_tensors_lie_at_multiples_of_their_width(tmp_path: Path) -> None:
    shapes = {name: value.to("meta") for name, value in tensors().items()}
    save_weights(shapes, tensors().items(), tmp_path)
    data = (tmp_path / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    fields = json.loads(data[8 : 8 + size])
    fields.pop("__metadata__")
    for name, field in fields.items():
        assert (8 + size + field["data_offsets"][0]) % shapes[name].itemsize == 0


def test_no_tensor_is_held_longer_than_it_takes_to_write_it(tmp_path: Path) -> None:
    written: list[weakref.ref[Tensor]] = []

    def made() -> Iterator[tuple[str, Tensor]]:
        for number in range(20):
            assert sum(each() is not None for each in written) <= 1
            value = torch.full((100,), float(number))
            written.append(weakref.ref(value))
            yield str(number), value
            del value

    save_weights({str(number): torch.empty(100, device="meta") for number in range(20)}, made(), tmp_path)
    assert len(written) == 20


def test_a_crash_leaves_no_file(tmp_path: Path) -> None:
    def made() -> Iterator[tuple[str, Tensor]]:
        yield "a", torch.ones(3)
        raise RuntimeError("the power went out")

    with pytest.raises(RuntimeError):
        save_weights({name: torch.empty(3, device="meta") for name in "ab"}, made(), tmp_path)
    assert not list(tmp_path.iterdir())
