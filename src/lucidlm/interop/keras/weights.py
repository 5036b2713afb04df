"""Read and write Keras' HDF5 weights under the names of our PyTorch model, without Keras or TensorFlow.

Keras names weights after the path of attributes to them: `blocks/block_1/mlp/up_proj/vars/0` is the kernel, (inputs,
outputs), of `model.layers.1.mlp.up_proj`, `…/vars/1` its bias. HDF5 can do much more than weights need: link to other
files or to itself, or declare data that are not there. All of that is refused before anything is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lucidlm.core.errors import InputError
from lucidlm.core.extras import require_package
from lucidlm.core.io import atomic_path

if TYPE_CHECKING:
    import h5py

OPTIMISER = "optimizer/vars"
"""The group in which Keras saves the optimiser's state of a compiled model."""

ATTRIBUTES = {"layers": "blocks", "norm": "final_norm", "lm_head": "head"}
"""Top-level modules of our PyTorch model with other names in Keras. The original names are taken, or would be saved
under `layers`: Keras saves attributes in the order of their names, and its own `layers` contains all layers."""

_OURS = {theirs: ours for ours, theirs in ATTRIBUTES.items()}
_PATH = re.compile(r"(?:blocks/block(?:_([1-9]\d*))?/)?([a-z_/]+)/vars/([01])")


def save_h5(state: dict[str, Tensor], path: Path) -> None:
    """Write the tensors of a causal `LanguageModel` in fp32, in the layout of Keras' `save_weights`.

    Raises
    ------
    LucidError: the disk is full.
    InputError: h5py is not installed.
    """
    with atomic_path(path) as temporary, _h5py().File(temporary, "w") as file:
        for name, value in state.items():
            value = value.detach().cpu().float()
            file.create_dataset(h5_path(name), data=(value.T if is_kernel(name) else value).contiguous().numpy())


def load_h5(path: str | Path) -> dict[str, Tensor]:
    """Read the weights of an HDF5 file in fp32, under the names of our PyTorch model.

    Raises
    ------
    InputError: it is missing or damaged, has anything but plain arrays of numbers, or values that are not finite.
    """
    with _datasets(path) as found:
        tensors = {name: _tensor(name, dataset) for name, dataset in found.items() if not name.startswith(OPTIMISER)}
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise InputError(f"the weights {name} hold infinities or NaN", where=path, fix="The model is of no use.")
    return tensors


def h5_shapes(path: str | Path) -> dict[str, Tensor]:
    """Return the result of `load_h5` as meta tensors: no data are read.

    Raises
    ------
    InputError: it is missing or damaged, or has anything but plain arrays of numbers.
    """
    with _datasets(path) as found:
        return {
            name: torch.empty(dataset.shape[::-1] if is_kernel(name) else dataset.shape, device="meta")
            for name, dataset in found.items()
            if not name.startswith(OPTIMISER)
        }


def load_optimiser(path: str | Path) -> dict[str, Any]:
    """Return the optimiser's state that Keras saved with the weights, as arrays by number; empty if there is none.

    Raises
    ------
    InputError: as `load_h5`.
    """
    with _datasets(path) as found:
        return {
            name.removeprefix(f"{OPTIMISER}/"): dataset[()]
            for name, dataset in found.items()
            if name.startswith(OPTIMISER)
        }


def h5_path(name: str) -> str:
    """Return the path in the file of the weights that our PyTorch model calls `name`."""
    *modules, kind = name.removeprefix("model.").split(".")
    if modules[0] == "layers":
        modules[1] = "block" if modules[1] == "0" else f"block_{modules[1]}"
    return "/".join([ATTRIBUTES.get(modules[0], modules[0]), *modules[1:], "vars", "1" if kind == "bias" else "0"])


def name_at(path: str) -> str:
    """Return our name for the weights at `path`; the path itself if it is none of ours."""
    if path.startswith(OPTIMISER) or (match := _PATH.fullmatch(path)) is None:
        return path
    block, module, kind = match.groups()
    if not path.startswith("blocks/"):
        module = _OURS.get(module, module)
    name = f"{module.replace('/', '.')}.{('weight', 'bias')[int(kind)]}"
    if path.startswith("blocks/"):
        name = f"layers.{block or 0}.{name}"
    name = name if name.startswith("lm_head.") else f"model.{name}"
    return name if h5_path(name) == path else path


def is_kernel(name: str) -> bool:
    """Return whether Keras stores the weights as (inputs, outputs), the transpose of PyTorch's."""
    return name.endswith(("_proj.weight", "lm_head.weight"))


def _tensor(name: str, dataset: h5py.Dataset) -> Tensor:
    value = torch.from_numpy(dataset[()]).float()
    return value.T.contiguous() if is_kernel(name) else value


@contextmanager
def _datasets(path: str | Path) -> Iterator[dict[str, h5py.Dataset]]:
    """Open a file and yield its datasets by name, all of them checked."""
    path = Path(path)
    if not path.is_file():
        raise InputError("file not found", where=path)
    try:
        with _h5py().File(path, "r") as file:
            found = {name_at(name): dataset for name, dataset in _walk(file, path, set())}
            if sum(dataset.nbytes for dataset in found.values()) > path.stat().st_size:
                raise _unsafe("its numbers take more room than the file has", path)
            yield found
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:  # h5py's, for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"is not a whole HDF5 file ({reason})",
            where=path,
            fix="It is damaged or of another kind (a .keras file is for keras.saving.load_model); restore it.",
        ) from None


def _walk(group: Any, where: Path, seen: set[int], above: str = "") -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield the datasets below `group` with their paths, except the states of random generators."""
    h5py = _h5py()
    for key in group:
        path = above + key
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise _unsafe(f"{path} is a link to elsewhere", where)
        item: Any = group[key]
        address = h5py.h5o.get_info(item.id).addr
        if address in seen:
            raise _unsafe(f"{path} stands in two places", where)
        seen.add(address)
        if isinstance(item, h5py.Group):
            if key != "seed_generator":
                yield from _walk(item, where, seen, f"{path}/")
        else:
            yield path, _plain(item, path, where)


def _plain(item: Any, path: str, where: Path) -> h5py.Dataset:
    """Return `item` if it is a dataset of numbers stored contiguously in this file."""
    kinds = "fiu" if path.startswith(OPTIMISER) else "f"
    if not isinstance(item, _h5py().Dataset) or item.dtype.kind not in kinds or item.dtype.itemsize > 8:
        raise _unsafe(f"{path} is not an array of floating-point numbers", where)
    if item.is_virtual or item.external:
        raise _unsafe(f"{path} lies in another file", where)
    if item.shape is None or item.chunks or item.id.get_storage_size() != item.nbytes:
        raise _unsafe(f"{path} is compressed or cut into chunks", where)
    return item


def _unsafe(what: str, where: Path) -> InputError:
    return InputError(f"{what}, which weights saved by Keras never do", where=where, fix="Save them with save_weights.")


def _h5py() -> Any:
    require_package("h5py")
    import h5py

    return h5py
