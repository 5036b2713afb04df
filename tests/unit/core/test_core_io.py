"""Files are written whole or not at all, and damage is noticed and named."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections import namedtuple
from pathlib import Path

import pytest
from safetensors import SafetensorError

from lucidlm.core import io
from lucidlm.core.errors import InputError, LucidError


def leftovers(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_writes_are_whole(tmp_path: Path) -> None:
    io.write_json(tmp_path / "new" / "a.json", {"ä": [1, 2]})
    assert io.read_json(tmp_path / "new" / "a.json") == {"ä": [1, 2]}
    assert leftovers(tmp_path / "new") == ["a.json"]


def test_a_failure_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    io.write_text(path, "old")

    def fail_half_way() -> None:
        with io.atomic_path(path) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "old"
    assert leftovers(tmp_path) == ["a.txt"]


def test_the_temporary_file_is_beside_its_destination(tmp_path: Path) -> None:
    with io.atomic_path(tmp_path / "a.txt") as temporary:
        assert temporary.parent == tmp_path  # a rename is atomic only within one file system
        assert not (tmp_path / "a.txt").exists()


def test_files_get_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    io.write_text(tmp_path / "atomic", "")
    assert stat.S_IMODE((tmp_path / "atomic").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    path = tmp_path / "a.txt"
    io.write_text(path, "old")

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(LucidError, match=r"a\.txt: ") as caught:
        io.write_text(path, "new")
    assert caught.value.exit_code == 1
    assert caught.value.fix
    assert path.read_text() == "old"
    assert leftovers(tmp_path) == ["a.txt"]


def test_a_full_disk_that_safetensors_met_is_told_as_one(tmp_path: Path) -> None:
    with pytest.raises(LucidError, match="no space left on the disk"), io.disk_errors(tmp_path):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(SafetensorError), io.disk_errors(tmp_path):
        raise SafetensorError("something else")


@pytest.mark.parametrize(
    ("code", "message"),
    [(errno.EACCES, "permission denied"), (errno.EROFS, "permission denied"), (errno.ENOTDIR, "a file stands")],
)
def test_places_that_cannot_be_written_are_the_users_to_change(tmp_path: Path, code: int, message: str) -> None:
    with pytest.raises(InputError, match=message), io.disk_errors(tmp_path):
        raise OSError(code, os.strerror(code))


def test_other_errors_of_the_system_pass(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output error"), io.disk_errors(tmp_path):
        raise OSError(errno.EIO, "Input/output error")


def test_a_file_where_a_directory_is_needed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a file stands where a directory is needed"):
        io.write_text(tmp_path / "file" / "a.txt", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not valid JSON"), (b'{"a": ', "not valid JSON"), (b"\xff\xfe", "not valid JSON"), (b"[1]", "JSON object")],
)
def test_damaged_json_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.json: .*{message}"):
        io.read_json(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["missing.json", ".", "file/a.json"])
def test_json_that_is_not_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file not found"):
        io.read_json(tmp_path / name)


# ---------------------------------------------------------------------- manifests


@pytest.fixture
def manifested(tmp_path: Path) -> Path:
    (tmp_path / "a").write_bytes(b"some bytes")
    (tmp_path / "b").write_bytes(b"others")
    io.write_manifest(tmp_path, ["a", "b"], step=3)
    return tmp_path


def test_a_manifest_verifies_what_it_lists(manifested: Path) -> None:
    manifest = io.verify_manifest(manifested)
    assert manifest["step"] == 3
    assert manifest["files"]["a"]["bytes"] == 10


def test_a_manifest_finds_a_missing_file(manifested: Path) -> None:
    (manifested / "b").unlink()
    with pytest.raises(InputError, match="/b: listed in the manifest but missing"):
        io.verify_manifest(manifested)


def test_a_manifest_finds_truncation(manifested: Path) -> None:
    (manifested / "a").write_bytes(b"some")
    with pytest.raises(InputError, match=r"/a: has 4 bytes where the manifest says 10"):
        io.verify_manifest(manifested)


def test_a_manifest_finds_every_flipped_bit(manifested: Path) -> None:
    content = (manifested / "a").read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1
        (manifested / "a").write_bytes(damaged)
        with pytest.raises(InputError, match="/a: does not match its checksum"):
            io.verify_manifest(manifested)


def test_damage_to_the_manifest_itself_is_never_a_crash(manifested: Path) -> None:
    content = (manifested / io.MANIFEST).read_bytes()
    facts = content.index(b'"files"')
    for place in range(facts, len(content)):
        if content[place : place + 1].isspace():
            continue
        damaged = bytearray(content)
        damaged[place] ^= 2
        (manifested / io.MANIFEST).write_bytes(damaged)
        with pytest.raises(InputError):
            io.verify_manifest(manifested)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.json: file not found"):
        io.verify_manifest(tmp_path)


# ---------------------------------------------------------------------- places


def test_free_space_is_asked_of_the_disk_that_will_hold_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    usage = namedtuple("usage", "total used free")

    def disk_usage(path: Path) -> usage:
        asked.append(path)
        return usage(10, 9, 1_000_000_000)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    io.require_free_space(tmp_path / "not" / "there", 1_000_000_000)
    with pytest.raises(LucidError, match=r"needs 2\.00 GB of disk, 1\.00 GB are free"):
        io.require_free_space(tmp_path / "not" / "there", 2_000_000_000)
    assert set(asked) == {tmp_path}


def test_vacant_places(tmp_path: Path) -> None:
    assert io.require_vacant(tmp_path / "new") == tmp_path / "new"
    assert not (tmp_path / "new").exists()
    assert io.require_vacant(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("data_card.json", "holds prepared data already"),
        ("lucidlm.json", "holds a model already"),
        ("checkpoints", "holds a run already"),
        ("thesis.docx", "holds other files"),
    ],
)
def test_occupied_places_say_by_what(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{what}.*Choose another --out"):
        io.require_vacant(tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_a_file_is_no_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file, a directory is needed"):
        io.require_vacant(tmp_path / "file")
