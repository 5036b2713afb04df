"""A small Hugging Face hub on this machine: what its clients ask for, answered as the hub answers it.

It serves repositories of models and data sets, each a row of commits with branches and tags: their description, the
listing of a commit in pages, and their files by `resolve`. Small files come directly, with their git hash as the ETag;
large ones (`LARGE`) by a redirect to another address, with size and SHA-256 in headers, as from the hub's storage. It
knows ranges, gated repositories, and how to fail: connections cut off, and a hub that is down.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from huggingface_hub import constants

from lucidlm.data.sources import hub_files

LARGE = (".safetensors", ".gguf", ".parquet", ".bin", ".gz")
"""Endings of files that lie in the storage for large files."""
PAGE = 3
"""Entries in a page of a listing (the hub's have 1,000)."""
TOKEN = "hf_tests"
"""The token whose owner has access to gated repositories."""


@dataclass
class Repository:
    """Files by path for each commit, and the commits that branches and tags name."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def commit(self, files: dict[str, bytes], *names: str) -> str:
        """Add a commit of these files, name it (`main` if nothing is said), and return its hash."""
        listing = json.dumps([len(self.commits), *((path, git_hash(data)) for path, data in sorted(files.items()))])
        commit = hashlib.sha1(listing.encode()).hexdigest()
        self.commits[commit] = files
        self.names |= dict.fromkeys(names or ("main",), commit)
        return commit


@dataclass
class Hub:
    """What is served, what has been asked for, and what goes wrong.

    Parameters
    ----------
    repositories: by kind and name, "models/acme/tiny".
    requests: method, path and Range of each request, in order.
    cut: how many bytes of a large file are sent before its connection is cut, for each answer that is to be cut.
    stalls: how many of the next large files stop after 500 bytes, until the client goes; `stalled` is set then.
    ranges: whether a part of a large file may be asked for; else all of it is sent.
    busy: how many of the next listings are refused with a 503.
    down: whether every answer is a 503.
    tokens: what clients showed who they are by, to the hub's interface and to its storage.
    """

    url: str = ""
    storage: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    stalls: int = 0
    ranges: bool = True
    busy: int = 0
    down: bool = False
    stalled: threading.Event = field(default_factory=threading.Event)
    tokens: dict[str, set[str]] = field(default_factory=lambda: {"/api/": set(), "/storage/": set()})

    def reset(self) -> None:
        """Serve nothing, forget what was asked for, and let nothing go wrong."""
        self.repositories.clear()
        self.requests.clear()
        self.cut, self.stalls, self.ranges, self.busy, self.down = [], 0, True, 0, False
        self.stalled.clear()
        for tokens in self.tokens.values():
            tokens.clear()

    def add(self, kind: str, name: str, files: dict[str, bytes], *, gated: bool = False) -> Repository:
        """Serve a new repository ("model" or "dataset") with these files at `main`."""
        repository = self.repositories[f"{kind}s/{name}"] = Repository(gated=gated)
        repository.commit(files)
        return repository

    def asked(self, method: str, part: str) -> list[str | None]:
        """Return the Range of each request by that method whose path has `part` in it."""
        return [asked for verb, path, asked in self.requests if verb == method and part in path]


def git_hash(data: bytes) -> str:
    """Return the hash by which git knows a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serve() -> Iterator[Hub]:
    """Run a hub on a free port of this machine."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with _Server(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        hub.storage = f"http://localhost:{server.server_address[1]}"  # another host, as on the hub: no token goes there
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


def turn_to(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the client in this process talk to `hub`, and keep what it fetches, and what lucidlm notes, in `cache`."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_files, "SECONDS_BETWEEN", 0.0)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LUCIDLM_CACHE", str(cache / "lucidlm"))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""


class _Refusal(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # each answer would wait for 40 ms

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append((self.command, self.path, self.headers.get("Range")))
        if (token := self.headers.get("Authorization")) and (
            place := f"/{self.path.split('/')[1]}/"
        ) in self.hub.tokens:
            self.hub.tokens[place].add(token)
        try:
            if self.hub.down:
                raise _Refusal(503, "", "Service Unavailable")
            path = urlsplit(self.path).path
            if path.startswith("/api/"):
                self._api(path.removeprefix("/api/").split("/"), body)
            elif path.startswith("/storage/"):
                self._large(path.rpartition("/")[2])
            else:
                self._file(path.strip("/").split("/"))
        except _Refusal as refusal:
            headers = {"X-Error-Message": str(refusal)} | ({"X-Error-Code": refusal.code} if refusal.code else {})
            self._send(refusal.status, json.dumps({"error": str(refusal)}).encode(), headers)

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _json(self, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    # ------------------------------------------------------------------ the interface for programs

    def _api(self, parts: list[str], body: bytes) -> None:
        kind, name, what = parts[0], "/".join(parts[1:3]), parts[3:]
        repository = self._repository(kind, name)
        if what[:1] == ["refs"]:
            branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in repository.names.items()]
            self._json({"branches": branches, "tags": [], "converts": []})
            return
        commit = self._commit(repository, unquote(what[1]) if what else "main")
        files = repository.commits[commit]
        if not what or what[0] == "revision":
            facts = {"sha": commit, "private": False, "gated": "auto" if repository.gated else False, "tags": []}
            self._json({"id": name, **facts, "siblings": [{"rfilename": path} for path in files]})
        elif what[0] == "tree" and self.hub.busy:
            self.hub.busy -= 1
            raise _Refusal(503, "", "Service Unavailable")
        elif what[0] == "tree":
            self._tree(files, unquote("/".join(what[2:])))
        elif what[0] == "paths-info":
            asked = parse_qs(body.decode()).get("paths") or json.loads(body)["paths"]
            self._json([_entry(path, files[path]) for path in asked if path in files])
        else:
            raise _Refusal(404, "", f"no such address: {self.path}")

    def _tree(self, files: dict[str, bytes], folder: str) -> None:
        query = parse_qs(urlsplit(self.path).query)
        below = {path: data for path, data in sorted(files.items()) if path.startswith(f"{folder}/" if folder else "")}
        entries = [_entry(path, data) for path, data in below.items()]
        folders = {path[: place + 1] for path in below for place, sign in enumerate(path[1:]) if sign == "/"}
        entries += [{"type": "directory", "path": path, "oid": git_hash(path.encode()), "size": 0} for path in folders]
        if query.get("recursive", ["false"])[0].lower() != "true":
            depth = folder.count("/") + 1 if folder else 0
            entries = [entry for entry in entries if entry["path"].count("/") == depth]
        if folder and not entries:
            raise _Refusal(404, "EntryNotFound", f"{folder} does not exist")
        start = int(query.get("cursor", ["0"])[0])
        more = start + PAGE < len(entries)
        address = f"{self.hub.url}{urlsplit(self.path).path}?recursive={query.get('recursive', ['false'])[0]}"
        link = {"Link": f'<{address}&cursor={start + PAGE}>; rel="next"'} if more else {}
        self._json(entries[start : start + PAGE], link)

    def _repository(self, kind: str, name: str) -> Repository:
        if (repository := self.hub.repositories.get(f"{kind}/{name}")) is None:
            raise _Refusal(401, "RepoNotFound", "Repository not found")
        return repository

    def _commit(self, repository: Repository, revision: str) -> str:
        commit = repository.names.get(revision, revision)
        if commit not in repository.commits:
            raise _Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    # ------------------------------------------------------------------ files

    def _file(self, parts: list[str]) -> None:
        kind = parts.pop(0) if parts[0] == "datasets" else "models"
        if len(parts) < 5 or parts[2] != "resolve":
            raise _Refusal(404, "", f"no such address: {self.path}")
        repository = self._repository(kind, "/".join(parts[:2]))
        commit = self._commit(repository, unquote(parts[3]))
        if repository.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise _Refusal(401, "GatedRepo", "Access to this repository is restricted. Please log in.")
        path = unquote("/".join(parts[4:]))
        if (data := repository.commits[commit].get(path)) is None:
            raise _Refusal(404, "EntryNotFound", f"{path} does not exist")
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if path.endswith(LARGE):
            digest = hashlib.sha256(data).hexdigest()
            headers |= {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(data))}
            self._send(302, b"", headers | {"Location": f"{self.hub.storage}/storage/{digest}"})
        else:
            self._send(200, data, headers | {"ETag": f'"{git_hash(data)}"'})

    def _large(self, digest: str) -> None:
        files = (
            data
            for held in self.hub.repositories.values()
            for files in held.commits.values()
            for data in files.values()
        )
        data = next(data for data in files if hashlib.sha256(data).hexdigest() == digest)
        ranged = (self.hub.ranges and self.headers.get("Range")) or ""
        asked = (ranged or "bytes=0-").removeprefix("bytes=").partition("-")
        start, end = int(asked[0]), int(asked[2] or len(data) - 1)
        if start >= len(data):
            raise _Refusal(416, "", "Range Not Satisfiable")
        part = data[start : end + 1]
        self.send_response(206 if ranged else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", f'"{digest}"')
        if ranged:
            self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.cut:
            part = part[: self.hub.cut.pop(0)]
            self.close_connection = True
        if self.hub.stalls:
            self.hub.stalls -= 1
            self.wfile.write(part[:500])
            self.hub.stalled.set()
            self.connection.recv(1)  # nothing comes any more: the client hangs up
            self.close_connection = True
            return
        self.wfile.write(part)


def _entry(path: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "oid": git_hash(data), "size": len(data)}
    if path.endswith(LARGE):
        digest = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 134}
    return entry
