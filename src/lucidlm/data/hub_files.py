"""Repositories of the Hugging Face hub: what one holds at a commit, and its files, fetched once into the hub's own cache.

The hub's client does the talking, so its settings apply (mirror, token, proxy), and its cache is used: what it or
transformers have fetched is not fetched again. Added here: a file that was cut off is taken up where it stopped, by a
later run too; each file is held against the hash that the hub states whenever it is used; and what the cache holds is
known without a network.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from lucidlm.core.errors import InputError, LucidError
from lucidlm.core.io import disk_errors, read_json, require_free_space, sha256, write_json
from lucidlm.core.progress import Task, say
from lucidlm.data.pypi import cache_directory

Kind = Literal["model", "dataset"]

COMMIT = re.compile("[0-9a-f]{40}")
SECONDS_TO_ANSWER = 10
LOGGED_TROUBLE = ("Error while downloading", "thrown while requesting", "HTTP Error")
"""How the client's lines about a connection that fails begin; it tries again by itself."""


@dataclass(frozen=True)
class Repository:
    """A repository at a commit.

    Parameters
    ----------
    where: the source as the user wrote it, for messages.
    name: OWNER/NAME.
    files: the size of each file in bytes, by its path.
    """

    kind: Kind
    where: str
    name: str
    commit: str
    files: dict[str, int]

    def fetch(self, paths: Sequence[str]) -> list[Path]:
        """Return where the files of these paths lie, once those that the cache does not hold are fetched.

        Raises
        ------
        InputError: access to them is refused.
        LucidError: the hub cannot be reached, the connection is lost, or what came is not what the hub says it is.
        """
        if missing := [path for path in paths if not self._is_held(path)]:
            self._fetch(missing)
        return [self._place(path) for path in paths]

    def _folder(self) -> Path:
        return _cached(self.kind, self.name)

    def _place(self, path: str) -> Path:
        return self._folder() / "snapshots" / self.commit / path

    def _is_held(self, path: str) -> bool:
        """Return whether the cache holds a file; one that is not what it was is removed, so that it is fetched again."""
        place = self._place(path)
        if not place.exists():
            return False
        hashed = Path(os.readlink(place)).name if place.is_symlink() else ""
        if place.stat().st_size == self.files[path] and _has_hash(place, hashed):
            return True
        say(f"{place}: its bytes have changed; fetching it again")
        place.resolve().unlink()
        place.unlink(missing_ok=True)
        return False

    def _fetch(self, paths: list[str]) -> None:
        folder, total = self._folder(), sum(self.files[path] for path in paths)
        partial = sum(part.stat().st_size for part in folder.glob("blobs/*.incomplete"))
        require_free_space(folder, total - partial)
        with Task("fetching", total / 1e6, "MB") as task:
            try:
                for path in paths:
                    with _answers(self.kind, self.name, self.commit, self.where):
                        self._fetch_file(path, task)
            except KeyboardInterrupt:
                say(f"{self.where}: cut off; the same command takes it up there")
                raise
            except Unreachable as error:
                fix = "The same command takes it up where it stopped." if task.done else error.fix
                raise LucidError(f"not all of it is in the cache: {error.what}", where=self.where, fix=fix) from error

    def _fetch_file(self, path: str, task: Task) -> None:
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.utils import WeakFileLock, build_hf_headers

        url = hf_hub_url(self.name, path, repo_type=self.kind, revision=self.commit)
        facts = get_hf_file_metadata(url, headers=build_hf_headers())
        if facts.etag is not None and re.fullmatch(r"\w[\w.+=-]{0,199}", facts.etag):
            # What lies there under its hash the client only links to; it does not take up what was cut off by itself.
            blob = self._folder() / "blobs" / facts.etag
            lock = Path(constants.HF_HUB_CACHE, ".locks", self._folder().name, f"{facts.etag}.lock")
            with disk_errors(blob):
                blob.parent.mkdir(parents=True, exist_ok=True)
                lock.parent.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(lock):
                if not blob.exists():
                    self._receive(path, url, facts, blob, task)
        with disk_errors(self._folder()):
            hf_hub_download(self.name, path, repo_type=self.kind, revision=self.commit)

    def _receive(self, path: str, url: str, facts: Any, blob: Path, task: Task) -> None:
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        part, size = blob.with_name(f"{blob.name}.incomplete"), facts.size
        if part.exists() and size is not None and part.stat().st_size > size:
            part.unlink()
        headers = build_hf_headers()
        if urlsplit(facts.location).netloc not in (urlsplit(url).netloc, "huggingface.co"):
            headers.pop("authorization", None)  # the storage's addresses are signed, and tokens are the hub's alone
        with disk_errors(part), _Counted(part, task) as file:
            if held := file.tell():
                say(f"{self.where}: {path}: going on at {held / 1e6:,.1f} MB")
                task.total = (task.total or 0) - held / 1e6
            http_get(
                facts.location, file, resume_size=held, headers=headers, expected_size=size, displayed_filename=path
            )
        if not _has_hash(part, facts.etag):
            part.unlink()
            what = f"{path} came with other bytes than the hub says it has"
            raise LucidError(what, where=self.where, fix="It was damaged or altered on its way; try again.")
        os.replace(part, blob)


class Unreachable(LucidError):
    """The hub does not answer, or not as a hub does."""


class _Counted(io.BufferedWriter):
    """A file that is added to, which counts on the progress of `task`, in megabytes, what it takes."""

    def __init__(self, path: Path, task: Task) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._task, self._end = task, self.tell()

    def write(self, data: Any, /) -> int:
        count, end = super().write(data), self.tell()
        self._task.advance((end - self._end) / 1e6)  # fewer, where a server began again
        self._end = end
        return count


def open_repository(kind: Kind, name: str, revision: str | None, where: str) -> Repository:
    """Look up a repository: at a branch, a tag or a commit; `main` if none is named.

    Without a network, and for a commit that was looked up before, what was known then is taken.

    Raises
    ------
    InputError: there is no such repository or revision, or no access to it.
    LucidError: the hub cannot be reached, and nothing of it is in the cache.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    revision = revision or "main"
    if COMMIT.fullmatch(revision) and (known := _remembered(kind, name, revision, where)):
        return known
    try:
        with _answers(kind, name, revision, where):
            api = HfApi()
            commit = api.repo_info(name, repo_type=kind, revision=revision, timeout=SECONDS_TO_ANSWER).sha
            listing = api.list_repo_tree(name, recursive=True, revision=commit, repo_type=kind)
            files = {entry.path: entry.size for entry in listing if isinstance(entry, RepoFile)}
    except Unreachable as error:
        if known := _remembered(kind, name, revision, where) or _fetched_by_others(kind, name, revision, where):
            say(f"{where}: {error.what}; taking commit {known.commit[:7]} from the cache")
            return known
        raise
    assert commit is not None
    for path in files:
        if "\\" in path or ":" in path or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise InputError(f"holds the path {path!r}, which leads out of it", where=where, fix="Do not trust it.")
    for known_as in {revision, commit}:
        with disk_errors(_record(kind, name, known_as)):
            write_json(_record(kind, name, known_as), {"commit": commit, "files": files})
    return Repository(kind, where, name, commit, files)


def _record(kind: Kind, name: str, revision: str) -> Path:
    folder = cache_directory().parent / "hub" / f"{kind}s--{name.replace('/', '--')}"
    return folder / f"{quote(revision, safe='')}.json"


def _remembered(kind: Kind, name: str, revision: str, where: str) -> Repository | None:
    if not (record := _record(kind, name, revision)).is_file():
        return None
    try:
        known = read_json(record)
        return Repository(kind, where, name, str(known["commit"]), {str(k): int(v) for k, v in known["files"].items()})
    except (InputError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _fetched_by_others(kind: Kind, name: str, revision: str, where: str) -> Repository | None:
    """Return what other software has fetched of a repository, of which nothing else is known."""
    reference = _cached(kind, name) / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    folder = _cached(kind, name) / "snapshots" / commit
    held = [path for path in folder.rglob("*") if path.is_file()] if COMMIT.fullmatch(commit) else []
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in held}
    return Repository(kind, where, name, commit, files) if files else None


def _cached(kind: Kind, name: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type=kind))


def _has_hash(file: Path, expected: str) -> bool:
    """Return whether a file has the hash by which the hub names it, if it is named by one.

    Large files are named by their SHA-256, small ones as git names them, and by some mirrors by their plain SHA-1.
    """
    if re.fullmatch("[0-9a-f]{64}", expected):
        return sha256(file) == expected
    if re.fullmatch("[0-9a-f]{40}", expected):
        data = file.read_bytes()
        return expected in (hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(), hashlib.sha1(data).hexdigest())
    return True


@contextmanager
def _answers(kind: Kind, name: str, revision: str, where: str) -> Iterator[None]:
    """Make one message of each of the client's errors, a line of its warnings, and nothing of its progress bars."""
    from huggingface_hub import constants, errors
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name}"
    log_in = "log in with `hf auth login`, or set HF_TOKEN"
    shown = not are_progress_bars_disabled()
    if shown:
        disable_progress_bars()
    try:
        with _one_line_a_warning(where):
            yield
    except (LucidError, KeyboardInterrupt):
        raise
    except errors.GatedRepoError as error:
        what = "is gated: its owner wants a licence accepted first, by an account that is logged in"
        raise InputError(what, where=where, fix=f"Accept it at {page}, then {log_in}.") from error
    except errors.RepositoryNotFoundError as error:
        what = f"there is no such {kind} at {constants.ENDPOINT}, or it is private"
        raise InputError(what, where=where, fix=f"Check its name; if it is private, {log_in}.") from error
    except errors.RevisionNotFoundError as error:
        what = f"has no revision {revision!r}"
        fix = f"Name a branch, a tag or a commit of {page}/commits/main."
        raise InputError(what, where=where, fix=fix) from error
    except errors.HFValidationError as error:
        raise InputError(f"is no name of a repository ({_first_line(error)})", where=where) from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        if status in (401, 403):
            raise InputError(
                f"{page} refuses access ({_first_line(error)})", where=where, fix=f"To get it, {log_in}."
            ) from error
        raise _unreachable(where, f"answers {status}" if status else _first_line(error)) from error
    except errors.OfflineModeIsEnabled as error:
        raise _unreachable(where, "HF_HUB_OFFLINE is set") from error
    except Exception as error:  # the client passes on the errors of several libraries
        raise _unreachable(where, _first_line(error)) from error
    finally:
        if shown:
            enable_progress_bars()


def _unreachable(where: str, reason: str) -> Unreachable:
    from huggingface_hub import constants

    fix = "Come back with a network, name a mirror by HF_ENDPOINT, or pass files of your own."
    return Unreachable(f"{constants.ENDPOINT} cannot be reached ({reason})", where=where, fix=fix)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".:") if lines else type(error).__name__


@contextmanager
def _one_line_a_warning(where: str) -> Iterator[None]:
    class Line(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if any(part in record.getMessage() for part in LOGGED_TROUBLE):
                say(f"{where}: the connection is lost; trying again")

    logger = logging.getLogger("huggingface_hub")
    handlers, propagates = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [Line(logging.WARNING)], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, propagates
