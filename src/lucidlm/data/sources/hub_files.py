"""Repositories of the Hugging Face hub: list the files at a commit, and fetch them once into the hub's own cache.

Requests go through the hub's client, so its settings apply (mirror, token, proxy), and its cache is used: files fetched by
it or by transformers are not fetched again. Added here: interrupted downloads resume, in a later run too; each file is
checked against the hub's hash whenever it is used; and cached repositories work offline.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal
from urllib.parse import quote, urlsplit

from lucidlm.core.errors import InputError, LucidError
from lucidlm.core.io import disk_errors, read_json, require_free_space, sha256, write_json
from lucidlm.core.progress import ProgressBar, log
from lucidlm.data.sources.pypi import cache_directory

RepoType = Literal["model", "dataset"]

COMMIT = re.compile("[0-9a-f]{40}")
SECONDS_TO_ANSWER = 10
SECONDS_BETWEEN = 1.0
ATTEMPTS = 5
"""Failed attempts in a row, without progress, before giving up; the waits between them grow."""
SHOWN = 1_000_000
"""Bytes: smaller downloads show no progress bar."""
LOGGED_TROUBLE = ("Error while downloading", "thrown while requesting", "HTTP Error")
"""Parts of the client's log messages about failing connections; it retries by itself."""


@dataclass(frozen=True)
class Repository:
    """A repository at a commit.

    Parameters
    ----------
    kind: model or data set.
    where: the source as the user wrote it, for messages.
    name: OWNER/NAME.
    files: the size of each file in bytes, by its path.
    """

    kind: RepoType
    where: str
    name: str
    commit: str
    files: dict[str, int]

    def fetch(self, paths: Sequence[str]) -> list[Path]:
        """Fetch the files that are not in the cache, and return the local path of each.

        Raises
        ------
        InputError: access is refused.
        LucidError: the hub cannot be reached, the connection is lost, or a download does not match the hub's hash.
        """
        missing = [path for path in paths if not self._is_held(path)]
        fetched = self._fetch(missing) if missing else {}
        return [fetched.get(path) or self._place(path) for path in paths]

    def _folder(self) -> Path:
        return _cached(self.kind, self.name)

    def _place(self, path: str) -> Path:
        return self._folder() / "snapshots" / self.commit / path

    def _is_held(self, path: str) -> bool:
        """Return whether a file is in the cache and intact; one that has changed is removed, to be fetched again."""
        place = self._place(path)
        if not place.exists():
            return False
        known_as = Path(os.readlink(place)).name if place.is_symlink() else ""
        if _has_hash(place, known_as, self.files[path]):
            return True
        log(f"{place}: its bytes have changed; fetching it again")
        place.resolve().unlink()
        place.unlink(missing_ok=True)
        return False

    def _begun(self) -> int:
        """Return the bytes already there of interrupted downloads."""
        return sum(part.stat().st_size for part in self._folder().glob("blobs/*.incomplete"))

    def _fetch(self, paths: list[str]) -> dict[str, Path]:
        total = sum(self.files[path] for path in paths)
        require_free_space(self._folder(), total - self._begun())
        with ProgressBar("fetching", total / 1e6, "MB") if total >= SHOWN else nullcontext() as task:
            try:
                with _answers(self.kind, self.name, self.commit, self.where):
                    return {path: self._fetch_file(path, task) for path in paths}
            except KeyboardInterrupt:
                log(f"{self.where}: cut off; the same command goes on where it stopped")
                raise
            except Unreachable as error:
                fix = "The same command goes on where it stopped." if self._begun() else error.fix
                raise LucidError(f"not all of it is in the cache: {error.what}", where=self.where, fix=fix) from error

    def _fetch_file(self, path: str, task: ProgressBar | None) -> Path:
        from huggingface_hub import constants, hf_hub_download
        from huggingface_hub.utils import WeakFileLock

        facts = self._facts(path)
        if facts.etag is not None and re.fullmatch(r"\w[\w.+=-]{0,199}", facts.etag):
            # The client only links to a blob that is there under its hash; it would not resume a partial download by itself.
            blob = self._folder() / "blobs" / facts.etag
            lock = Path(constants.HF_HUB_CACHE, ".locks", self._folder().name, f"{facts.etag}.lock")
            with disk_errors(blob):
                blob.parent.mkdir(parents=True, exist_ok=True)
                lock.parent.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(lock):
                if not blob.exists():
                    self._receive(path, blob, task)
        with disk_errors(self._folder()):
            return Path(hf_hub_download(self.name, path, repo_type=self.kind, revision=self.commit))

    def _facts(self, path: str) -> Any:
        """Return the hub's metadata of a file: `etag`, `size` and a `location` that is valid for a while."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.utils import build_hf_headers

        url = hf_hub_url(self.name, path, repo_type=self.kind, revision=self.commit)
        return get_hf_file_metadata(url, headers=build_hf_headers(), timeout=SECONDS_TO_ANSWER)

    def _receive(self, path: str, blob: Path, task: ProgressBar | None) -> None:
        """Fetch a file into the cache under its hash; when the connection breaks, retry from where it stopped."""
        from huggingface_hub.errors import HfHubHTTPError

        part, failures = blob.with_name(f"{blob.name}.incomplete"), 0
        held = part.stat().st_size if part.exists() else 0
        if held:
            log(f"{self.where}: {path}: going on at {held / 1e6:,.1f} MB")
            if task is not None and task.total is not None:
                task.total -= held / 1e6
        while True:
            try:
                with disk_errors(part), part.open("ab") as file:
                    for count in _stream(self._facts(path), file):
                        if task is not None:
                            task.advance(count / 1e6)
                break
            except (LucidError, HfHubHTTPError):
                raise
            except Exception as error:  # the client raises the errors of its HTTP library
                now = part.stat().st_size
                failures, held = (0 if now > held else failures + 1), now
                if failures == ATTEMPTS:
                    raise
                reason = f"the connection broke at {now / 1e6:,.1f} MB ({_first_line(error)})"
                log(f"{self.where}: {path}: {reason}; once more")
                time.sleep(SECONDS_BETWEEN * failures)
        if not _has_hash(part, blob.name, self.files[path]):
            part.unlink()
            what = f"{path} came with other bytes than the hub says it has"
            raise LucidError(what, where=self.where, fix="It was damaged or altered on its way; try again.")
        os.replace(part, blob)


def _stream(facts: Any, file: BinaryIO) -> Iterator[int]:
    """Append the missing rest of a hub file to `file`, open for appending; yield the bytes written per chunk."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    if facts.size is not None and file.tell() > facts.size:
        file.truncate(file.seek(0))
    if (held := file.tell()) == facts.size:
        return
    hosts = (urlsplit(constants.ENDPOINT).netloc, "huggingface.co")
    headers = {**build_hf_headers(), "Accept-Encoding": "identity", **({"Range": f"bytes={held}-"} if held else {})}
    if urlsplit(facts.location).netloc not in hosts:
        headers.pop("authorization", None)  # storage URLs are signed, and the token must go to the hub only
    asked = get_session().stream(
        "GET", facts.location, headers=headers, timeout=SECONDS_TO_ANSWER, follow_redirects=True
    )
    with asked as response:
        hf_raise_for_status(response)
        if held and response.status_code != 206:  # no range requests there: this is the whole file again
            file.truncate(file.seek(0))
        for piece in response.iter_bytes():
            yield file.write(piece)
            file.flush()  # so that a later run can resume, however this process ends
    if facts.size is not None and file.tell() != facts.size:
        raise ConnectionError(f"it ended at {file.tell():,} of {facts.size:,} bytes")


class Unreachable(LucidError):
    """The hub does not answer, or gives an answer that makes no sense."""


def open_repository(kind: RepoType, name: str, revision: str | None, where: str) -> Repository:
    """Look up a repository at a branch, tag or commit; by default `main`.

    Offline, and for commits looked up before, the cached listing is used.

    Raises
    ------
    InputError: there is no such repository or revision, or no access to it.
    LucidError: the hub cannot be reached, and the cache has nothing of the repository.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    revision = revision or "main"
    if COMMIT.fullmatch(revision) and (known := _cached_listing(kind, name, revision, where)):
        return known
    try:
        with _answers(kind, name, revision, where):
            api = HfApi()
            commit = api.repo_info(name, repo_type=kind, revision=revision, timeout=SECONDS_TO_ANSWER).sha or ""
            if not re.fullmatch(r"\w[\w.-]*", commit):
                raise ValueError(f"it names the commit {commit!r}")
            listing = api.list_repo_tree(name, recursive=True, revision=commit, repo_type=kind)
            files = {entry.path: entry.size for entry in listing if isinstance(entry, RepoFile)}
    except Unreachable as error:
        if known := _cached_listing(kind, name, revision, where) or _fetched_by_others(kind, name, revision, where):
            log(f"{where}: {error.what}; taking what the cache holds")
            return known
        raise
    for path in files:
        if "\\" in path or ":" in path or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise InputError(f"holds the path {path!r}, which leads out of it", where=where, fix="Do not trust it.")
    for known_as in {revision, commit}:
        with disk_errors(_listing_path(kind, name, known_as)):
            write_json(_listing_path(kind, name, known_as), {"commit": commit, "files": files})
    return Repository(kind, where, name, commit, files)


def _listing_path(kind: RepoType, name: str, revision: str) -> Path:
    folder = cache_directory().parent / "hub" / f"{kind}s--{name.replace('/', '--')}"
    return folder / f"{quote(revision, safe='')}.json"


def _cached_listing(kind: RepoType, name: str, revision: str, where: str) -> Repository | None:
    if not (record := _listing_path(kind, name, revision)).is_file():
        return None
    try:
        known = read_json(record)
        return Repository(kind, where, name, str(known["commit"]), {str(k): int(v) for k, v in known["files"].items()})
    except (InputError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _fetched_by_others(kind: RepoType, name: str, revision: str, where: str) -> Repository | None:
    """Return the files of a repository that other software has put into the hub's cache, without a listing of ours."""
    reference = _cached(kind, name) / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    folder = _cached(kind, name) / "snapshots" / commit
    held = [path for path in folder.rglob("*") if path.is_file()] if COMMIT.fullmatch(commit) else []
    files = {path.relative_to(folder).as_posix(): path.stat().st_size for path in held}
    return Repository(kind, where, name, commit, files) if files else None


def _cached(kind: RepoType, name: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type=kind))


def _has_hash(file: Path, expected: str, size: int) -> bool:
    """Return whether a file has the hash `expected`; if that is not a hash, whether it has the right size.

    The hub identifies large files by SHA-256 and small ones by git's blob hash; some mirrors use a plain SHA-1.
    """
    if re.fullmatch("[0-9a-f]{64}", expected):
        return sha256(file) == expected
    if re.fullmatch("[0-9a-f]{40}", expected):
        start = b"blob %d\0" % file.stat().st_size
        with file.open("rb") as git, file.open("rb") as plain:
            hashes = hashlib.file_digest(git, lambda: hashlib.sha1(start)), hashlib.file_digest(plain, "sha1")
        return expected in [found.hexdigest() for found in hashes]
    return file.stat().st_size == size


@contextmanager
def _answers(kind: RepoType, name: str, revision: str, where: str) -> Iterator[None]:
    """Turn each of the client's errors into one message and its warnings into a line; hide its progress bars."""
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
    except Exception as error:  # the client raises errors of several libraries
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
                log(f"{where}: the hub is slow to answer; trying again")

    logger = logging.getLogger("huggingface_hub")
    handlers, propagates = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [Line(logging.WARNING)], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, propagates
