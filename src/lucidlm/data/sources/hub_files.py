"""Repositories of the Hugging Face hub: what one holds at a commit, and its files, fetched once into the hub's own cache.

The hub's client does the talking, so its settings apply (mirror, token, proxy), and its cache is used: what it or
transformers have fetched is not fetched again. Added here: a file that was cut off is taken up where it stopped, by a
later run too; each file is held against the hash that the hub states whenever it is used; and what the cache holds is
known without a network.
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
"""How often in a row a connection may bring nothing before it is given up; the waits between grow."""
SHOWN = 1_000_000
"""Bytes: fetching less takes no time to speak of, and shows no progress."""
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

    kind: RepoType
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
        missing = [path for path in paths if not self._is_held(path)]
        fetched = self._fetch(missing) if missing else {}
        return [fetched.get(path) or self._place(path) for path in paths]

    def _folder(self) -> Path:
        return _cached(self.kind, self.name)

    def _place(self, path: str) -> Path:
        return self._folder() / "snapshots" / self.commit / path

    def _is_held(self, path: str) -> bool:
        """Return whether the cache holds a file; one that is not what it was is removed, so that it is fetched again."""
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
        """Return how many bytes there are of files that were cut off."""
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
            # What lies there under its hash the client only links to; it does not take up what was cut off by itself.
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
        """Return what the hub says of a file: its `etag`, `size` and, for a while, its `location`."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.utils import build_hf_headers

        url = hf_hub_url(self.name, path, repo_type=self.kind, revision=self.commit)
        return get_hf_file_metadata(url, headers=build_hf_headers(), timeout=SECONDS_TO_ANSWER)

    def _receive(self, path: str, blob: Path, task: ProgressBar | None) -> None:
        """Fetch a file into the cache under its hash, and begin again where a connection breaks."""
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
            except Exception as error:  # the client passes on those of its library for connections
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
    """Add to `file`, which is open for appending, what it lacks of a file of the hub; yield the bytes of each piece."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    if facts.size is not None and file.tell() > facts.size:
        file.truncate(file.seek(0))
    if (held := file.tell()) == facts.size:
        return
    hosts = (urlsplit(constants.ENDPOINT).netloc, "huggingface.co")
    headers = {**build_hf_headers(), "Accept-Encoding": "identity", **({"Range": f"bytes={held}-"} if held else {})}
    if urlsplit(facts.location).netloc not in hosts:
        headers.pop("authorization", None)  # the storage's addresses are signed, and tokens are the hub's alone
    asked = get_session().stream(
        "GET", facts.location, headers=headers, timeout=SECONDS_TO_ANSWER, follow_redirects=True
    )
    with asked as response:
        hf_raise_for_status(response)
        if held and response.status_code != 206:  # it knows no ranges: this is all of it again
            file.truncate(file.seek(0))
        for piece in response.iter_bytes():
            yield file.write(piece)
            file.flush()  # whatever ends the process, it is there for the next
    if facts.size is not None and file.tell() != facts.size:
        raise ConnectionError(f"it ended at {file.tell():,} of {facts.size:,} bytes")


class Unreachable(LucidError):
    """The hub does not answer, or not as a hub does."""


def open_repository(kind: RepoType, name: str, revision: str | None, where: str) -> Repository:
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
            commit = api.repo_info(name, repo_type=kind, revision=revision, timeout=SECONDS_TO_ANSWER).sha or ""
            if not re.fullmatch(r"\w[\w.-]*", commit):
                raise ValueError(f"it names the commit {commit!r}")
            listing = api.list_repo_tree(name, recursive=True, revision=commit, repo_type=kind)
            files = {entry.path: entry.size for entry in listing if isinstance(entry, RepoFile)}
    except Unreachable as error:
        if known := _remembered(kind, name, revision, where) or _fetched_by_others(kind, name, revision, where):
            log(f"{where}: {error.what}; taking what the cache holds")
            return known
        raise
    for path in files:
        if "\\" in path or ":" in path or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise InputError(f"holds the path {path!r}, which leads out of it", where=where, fix="Do not trust it.")
    for known_as in {revision, commit}:
        with disk_errors(_record(kind, name, known_as)):
            write_json(_record(kind, name, known_as), {"commit": commit, "files": files})
    return Repository(kind, where, name, commit, files)


def _record(kind: RepoType, name: str, revision: str) -> Path:
    folder = cache_directory().parent / "hub" / f"{kind}s--{name.replace('/', '--')}"
    return folder / f"{quote(revision, safe='')}.json"


def _remembered(kind: RepoType, name: str, revision: str, where: str) -> Repository | None:
    if not (record := _record(kind, name, revision)).is_file():
        return None
    try:
        known = read_json(record)
        return Repository(kind, where, name, str(known["commit"]), {str(k): int(v) for k, v in known["files"].items()})
    except (InputError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _fetched_by_others(kind: RepoType, name: str, revision: str, where: str) -> Repository | None:
    """Return what other software has fetched of a repository, of which nothing else is known."""
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
    """Return whether a file has the hash by which the hub knows it; if it is known by something else, the size.

    Large files are known by their SHA-256, small ones as git knows them, and to some mirrors by their plain SHA-1.
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
                log(f"{where}: the hub is slow to answer; trying again")

    logger = logging.getLogger("huggingface_hub")
    handlers, propagates = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [Line(logging.WARNING)], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, propagates
