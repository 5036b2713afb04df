"""Files are written whole or not at all, and checked when they are read.

Every file the package leaves behind goes through `atomic_path`: it is written beside its destination, flushed to
disk and renamed, so a crash leaves the old file or the new one, never half of one. A directory whose files belong
together carries a manifest of sizes and SHA-256 sums; it counts as complete only once the manifest is there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lucidlm.core.errors import InputError, LucidError

MANIFEST = "manifest.json"


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success fsync it and rename it over `path`, on failure remove it.

    Raises
    ------
    LucidError: the disk is full or refuses the write; `path` is as it was before.
    """
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
    temporary = Path(name)
    try:
        with disk_errors(path):
            yield temporary
            _sync(temporary)
            temporary.chmod(0o666 & ~_umask())
            os.replace(temporary, path)
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Turn the operating system's refusals to write below `path` into errors a person can act on."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        code = _error_number(error)
        if code in (errno.ENOSPC, errno.EDQUOT):
            raise LucidError(
                "no space left on the disk", where=path, fix="Free some space, then run it again."
            ) from error
        if code == errno.EFBIG:
            raise LucidError(
                "the disk, or a limit of this account (ulimit -f), takes no file so large",
                where=path,
                fix="Choose another place or raise the limit.",
            ) from error
        if code in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise InputError(
                "cannot be written (permission denied)", where=path, fix="Choose another place."
            ) from error
        if code in (errno.ENOTDIR, errno.EEXIST):
            raise InputError(
                "a file stands where a directory is needed", where=path, fix="Choose another place."
            ) from error
        raise


def _error_number(error: OSError | SafetensorError) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))  # safetensors passes the system's errors on as text
    return int(found[1]) if found else None


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` to `path` as indented UTF-8 JSON, atomically."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    InputError: the file is missing, is not JSON, or holds something other than an object.
    """
    if not Path(path).is_file():
        raise InputError("file not found", where=path)
    try:
        text = Path(path).read_text(encoding="utf-8")
        value = json.loads(text)
        if "\\u" in text:  # escapes may spell halves of characters, which nothing could write again
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # also for numbers of thousands of digits, and endless nesting
        raise InputError(
            f"is not valid JSON ({error})", where=path, fix="The file is damaged; make it again."
        ) from None
    if not isinstance(value, dict):
        raise InputError("should hold a JSON object", where=path)
    return value


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal, reading it in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_files(directory: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of the named files in `directory`, as records list them; `listed_files` reads that back."""
    return {name: {"bytes": (directory / name).stat().st_size, "sha256": sha256(directory / name)} for name in names}


def listed_files(files: Any) -> dict[str, tuple[int, str]]:
    """Return the sizes in bytes and the SHA-256 sums of the files that a record lists, by their names.

    Raises
    ------
    ValueError: it is not such a list.
    """
    try:
        return {name: (int(facts["bytes"]), str(facts["sha256"])) for name, facts in files.items()}
    except (AttributeError, KeyError, OverflowError, TypeError) as error:
        raise ValueError("no list of files with sizes and checksums") from error


def write_manifest(directory: str | Path, names: Iterable[str], **facts: Any) -> None:
    """Record size and SHA-256 of the named files, and any `facts`, in `directory/manifest.json`: the last file written."""
    directory = Path(directory)
    write_json(directory / MANIFEST, {**facts, "files": describe_files(directory, names)})


def check_file(path: Path, size: int, checksum: str | None, *, record: str, fix: str) -> None:
    """Hold a file against the size in bytes and, unless it is None, the SHA-256 that a `record` of it says.

    Raises
    ------
    InputError: it is missing, truncated or altered; `fix` is what the message advises.
    """
    if not path.is_file():
        raise InputError(f"listed in {record} but missing", where=path, fix=fix)
    if (found := path.stat().st_size) != size:
        raise InputError(f"has {found:,} bytes where {record} says {size:,} (truncated?)", where=path, fix=fix)
    if checksum is not None and sha256(path) != checksum:
        raise InputError("does not match its checksum: its bytes have changed", where=path, fix=fix)


def verify_manifest(directory: str | Path) -> dict[str, Any]:
    """Check every file that `directory/manifest.json` lists against its size and SHA-256; return the manifest.

    Raises
    ------
    InputError: there is no manifest, or a file is missing, truncated or altered; the message names it.
    """
    directory = Path(directory)
    manifest = read_json(directory / MANIFEST)
    try:
        files = listed_files(manifest.get("files"))
    except ValueError:
        raise InputError(
            "does not list files with sizes and checksums",
            where=directory / MANIFEST,
            fix="The file is damaged; restore it or make it again.",
        ) from None
    for name, (size, checksum) in files.items():
        check_file(directory / name, size, checksum, record="the manifest", fix="Restore it or make it again.")
    return manifest


def require_free_space(directory: str | Path, needed: int) -> None:
    """Refuse to start what would fill the disk.

    Raises
    ------
    LucidError: fewer than `needed` bytes are free on the disk that holds `directory`.
    """
    directory = Path(directory).absolute()
    while not directory.exists():
        directory = directory.parent
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise LucidError(
            f"needs {needed / 1e9:.2f} GB of disk, {free / 1e9:.2f} GB are free",
            where=directory,
            fix="Free some space or choose another place.",
        )


def require_vacant(directory: str | Path, *, option: str = "--out") -> Path:
    """Return `directory` as a path if a new result may be written there: it does not exist yet, or is empty.

    Raises
    ------
    InputError: something is there already. Nothing of it is touched.
    """
    directory = Path(directory)
    if directory.is_file():
        raise InputError("is a file, a directory is needed", where=directory, fix=f"Choose another {option}.")
    if directory.is_dir() and any(directory.iterdir()):
        kind = "holds other files"
        for name, what in (("data_card.json", "prepared data"), ("lucidlm.json", "a model"), ("checkpoints", "a run")):
            if (directory / name).exists():
                kind = f"holds {what} already"
                break
        raise InputError(kind, where=directory, fix=f"Choose another {option}, or remove it first.")
    return directory


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
