"""Models in archives: found, unpacked once and checked from then on; what an archive should not hold is refused."""

from __future__ import annotations

import io
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lucidlm.checkpoint import source as origin
from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.save import save_model
from lucidlm.checkpoint.source import resolve_source
from lucidlm.core.errors import InputError, LucidError
from lucidlm.core.io import write_manifest
from lucidlm.data.sources import archive
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel

CONFIG = ModelConfig(vocab_size=20, embedding_dim=4, num_heads=2, ff_dim=8, num_layers=1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LUCIDLM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_model(LanguageModel(CONFIG), tmp_path / "model")
    return tmp_path / "model"


Change = Callable[[tarfile.TarFile], object]


def add(name: str, data: bytes = b"x", **fields: object) -> Change:
    """Return what adds a member to a tar, its header altered."""

    def change(file: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        for field, value in fields.items():
            setattr(info, field, value)
        file.addfile(info, io.BytesIO(data) if data else None)

    return change


def tar(path: Path, folder: Path, *changes: Change, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for change in changes:
            change(file)
        file.add(folder, "top/model")
    return path


def zipped(path: Path, folder: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member in sorted(folder.iterdir()):
            file.write(member, f"package/{member.name}")
        for name in names:
            file.writestr(name, "x")
    return path


def refused(path: Path | str, *words: str, cache: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_model(path)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not cache.exists() or not list(cache.iterdir())


@pytest.mark.parametrize("name", ["a.zip", "a.whl", "a.tar.gz", "a.tgz", "a.tar.bz2", "a.tar.xz"])
def test_a_model_in_an_archive_opens(name: str, model: Path, tmp_path: Path, cache: Path) -> None:
    (model / "run.py").write_text("raise SystemExit")
    (model / "manifest.json").write_text("{}")
    path = tmp_path / name
    if name.endswith((".zip", ".whl")):
        zipped(path, model)
    else:
        tar(
            path,
            model,
            mode=f"w:{name.rpartition('.')[2].replace('tgz', 'gz')}",
        )
    for _ in range(2):  # the second time from the cache
        state = load_model(path).model.state_dict()
        assert all(torch.equal(state[key], value) for key, value in load_model(model).model.state_dict().items())
    [unpacked] = cache.iterdir()
    assert not (unpacked / "run.py").exists()
    (unpacked / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"model\.safetensors: has 0 bytes where the manifest says"):
        load_model(path)


@pytest.mark.parametrize(
    "name", ["../evil.json", "/etc/evil.json", "package/../../evil.json", "..\\evil.json", "C:\\evil"]
)
def test_paths_that_lead_out(name: str, model: Path, tmp_path: Path, cache: Path) -> None:
    refused(zipped(tmp_path / "a.zip", model, name), "which leads out of it", cache=cache)
    refused(tar(tmp_path / "a.tgz", model, add(name)), "which leads out of it", cache=cache)
    assert not list(tmp_path.rglob("*evil*"))


def test_links(model: Path, tmp_path: Path, cache: Path) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
        path = tar(tmp_path / "a.tgz", model, add("top/model/x.json", b"", type=kind, linkname="/etc/passwd"))
        refused(path, "holds the link 'top/model/x.json'", cache=cache)
    path = zipped(tmp_path / "a.zip", model)
    with zipfile.ZipFile(path, "a") as file:
        info = zipfile.ZipInfo("package/x.json")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(info, "/etc/passwd")
    refused(path, "holds the link 'package/x.json'", cache=cache)


def test_what_is_there_twice(model: Path, tmp_path: Path, cache: Path) -> None:
    refused(
        tar(tmp_path / "a.tgz", model, add("top/model/config.json")), "holds 'top/model/config.json' twice", cache=cache
    )
    refused(zipped(tmp_path / "a.zip", model, "package/./config.json"), "config.json' twice", cache=cache)


def test_names_that_no_disk_takes(model: Path, tmp_path: Path, cache: Path) -> None:
    refused(zipped(tmp_path / "a.zip", model, f"package/{'é' * 128}.json"), "longer than a name may be", cache=cache)


def test_headers_that_claim_too_much(model: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
        path = tar(tmp_path / "a.tgz", model, add("x", bytes(100_000), type=kind))
        refused(path, "is not a sound archive (a name claims 100,000 bytes)", cache=cache)
    path = tar(tmp_path / "a.tgz", model, add("top/x", b"", size=10**12), add("top/y"))
    refused(path, "unpacks to more than 16 GB", cache=cache)
    backwards = add("top/x", b"", pax_headers={"size": "-512"}, type=tarfile.DIRTYPE)
    refused(tar(tmp_path / "a.tgz", model, backwards), "'top/x' claims -512 bytes", cache=cache)
    monkeypatch.setattr(archive, "MOST_MEMBERS", 2)
    refused(tar(tmp_path / "a.tgz", model), "holds more than 2 files", cache=cache)


def test_what_is_no_archive_or_a_part_of_one(model: Path, tmp_path: Path, cache: Path) -> None:
    for name in ("a.zip", "a.tar.gz", "a.tar.xz", "a.tar.bz2"):
        whole = (
            zipped(tmp_path / "w.zip", model) if name == "a.zip" else tar(tmp_path / "w", model, mode=f"w:{name[6:]}")
        )
        data = whole.read_bytes()
        for part in (b"", b"PK\x05\x06", data[: len(data) // 2], data[:20], b"\xff" * 100):
            (tmp_path / name).write_bytes(part)
            refused(tmp_path / name, name, "is not a sound archive", cache=cache)


def test_a_member_whose_bytes_have_changed(model: Path, tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        for member in model.iterdir():
            file.write(member, member.name)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"rope_theta": 10000.0', b'"rope_theta": 20000.0', 1))
    refused(path, "is not a sound archive (Bad CRC-32 for file", cache=cache)


def test_encrypted_and_odd_compression(model: Path, tmp_path: Path, cache: Path) -> None:
    path = zipped(tmp_path / "a.zip", model)
    data = path.read_bytes()
    for field, value in ((8, 1), (10, zipfile.ZIP_LZMA)):  # flags and method in the central directory
        entry = data.index(b"PK\x01\x02")
        path.write_bytes(data[: entry + field] + struct.pack("<H", value) + data[entry + field + 2 :])
        refused(path, "is encrypted, or compressed in a way that packages are not", cache=cache)


def test_archives_without_a_model_or_with_several(model: Path, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "pickles").mkdir()
    (tmp_path / "pickles" / "pytorch_model.bin").write_bytes(b"\x80\x02")
    (tmp_path / "pickles" / "config.json").write_text("{}")
    refused(zipped(tmp_path / "a.zip", tmp_path / "pickles"), "holds no model", ".safetensors", cache=cache)
    two = zipped(tmp_path / "b.zip", model, "other/config.json", "other/model.safetensors")
    refused(two, "holds several models (other, package)", cache=cache)


def test_several_models_of_one_package_are_told_apart(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(LanguageModel(CONFIG, seed=1), tmp_path / "other")
    file = tmp_path / "kept" / "a.zip"
    file.parent.mkdir()
    with zipfile.ZipFile(file, "w") as package:
        for folder in (model, tmp_path / "other"):
            for member in folder.iterdir():
                package.write(member, f"{folder.name}/{member.name}")
    write_manifest(file.parent, ["a.zip"])
    monkeypatch.setattr(origin, "fetch", lambda name, version: origin_package(file))
    for folder in (model, tmp_path / "other", model):
        state = load_model(f"pypi:a==1!{folder.name}").model.state_dict()
        assert all(torch.equal(state[key], value) for key, value in load_model(folder).model.state_dict().items())


def origin_package(file: Path) -> object:
    from lucidlm.data.sources.pypi import Package

    return Package("a", "1", file, "0" * 64)


def test_nothing_is_left_when_the_disk_is_full(
    model: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    path = zipped(tmp_path / "a.zip", model)
    monkeypatch.setattr(origin.shutil, "copyfileobj", full)
    with pytest.raises(LucidError, match="no space left"):
        resolve_source(path)
    assert not list(cache.iterdir())
