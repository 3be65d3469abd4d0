"""A Hugging Face Hub on the loopback interface, for tests with the real clients and no network.

It serves a folder tree, ``root/{models,datasets}/{owner}/{name}/files...``, and stores uploads in it. That is the
revision ``main``, also under its commit hash (made from the contents: it changes when they do). Other branches and
pull requests lie beside it, in ``root/{models,datasets}@{revision}/...``.
The clients read their settings when they are imported: run them in a subprocess, with `HubServer.env`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

__all__ = ["HubServer", "hub", "wiki"]

CUT = 0  # stands beside the statuses of faults: send half a body and hang up
LFS_SUFFIXES = {".arrow", ".bin", ".gguf", ".model", ".parquet", ".safetensors"}
LFS_FROM_BYTES = 1_000_000  # anything this large is stored as LFS, whatever its name
DATE = "2026-01-01T00:00:00.000Z"
REPO = r"(?P<repo>\w[\w.-]*/\w[\w.-]*)"
API = rf"/api/(?P<kind>models|datasets)/{REPO}"
PAGE = rf"/(?:(?P<kind>datasets)/)?{REPO}"  # models have no prefix
WRITES = {"create", "branch", "preupload", "lfs_batch", "commit"}  # refused without a token
ROUTES = {
    rf"(GET|HEAD) {PAGE}/resolve/(?P<revision>[^/]+)/(?P<path>.+)": "resolve",
    rf"GET {API}(/revision/(?P<revision>[^/]+))?": "info",
    rf"GET {API}/tree/(?P<revision>[^/]+)/?(?P<path>.*)": "tree",
    rf"POST {API}/paths-info/(?P<revision>[^/]+)": "paths_info",
    r"POST /api/repos/create": "create",
    r"POST /api/validate-yaml": "validate_yaml",
    rf"POST {API}/branch/(?P<path>.+)": "branch",
    rf"POST {API}/preupload/(?P<revision>[^/]+)": "preupload",
    rf"POST {PAGE}\.git/info/lfs/objects/batch": "lfs_batch",
    r"PUT /lfs/(?P<oid>[0-9a-f]{64})": "lfs_put",
    rf"POST {API}/commit/(?P<revision>[^/]+)": "commit",
}


class HubServer(ThreadingHTTPServer):
    """The server, as a context manager; ``requests`` lists every ``"METHOD path"`` it was asked for."""

    request_queue_size = 64  # snapshot_download opens many connections at once

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[str] = []
        self.blobs: dict[str, bytes] = {}  # LFS uploads by SHA-256, for a commit to name
        self.private: set[str] = set()  # "models/owner/name" of private repositories
        self._faults: list[tuple[str, int]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Refuse connections from now on; stopping twice is allowed."""
        self.shutdown()
        self.server_close()

    def fail_next(self, status: int = 503, times: int = 1, path_contains: str = "") -> None:
        """Answer ``status`` to the next ``times`` requests with ``path_contains`` in ``"METHOD path"``."""
        self._faults += [(path_contains, status)] * times

    def truncate_next(self, path_contains: str = "") -> None:
        """Close the connection after half the body of the next file download that matches."""
        self._faults.append((path_contains, CUT))

    def take_fault(self, line: str, is_download: bool) -> int | None:
        """The status to fail this request with, or `CUT`, if one is planned; each is handed out once."""
        with self._lock:
            for fault in self._faults:
                if fault[0] in line and (is_download or fault[1] != CUT):
                    self._faults.remove(fault)
                    return fault[1]
        return None

    def env(self, tmp_path: Path) -> dict[str, str]:
        """The environment for a client in a subprocess: this server, caches of its own, no proxy."""
        foreign = re.compile(r"(HF|HUGGING\w*|TRANSFORMERS|DATASETS)_\w+|\w+_PROXY", re.IGNORECASE)
        return {name: value for name, value in os.environ.items() if not foreign.fullmatch(name)} | {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(tmp_path / "hf_home"),
            "HF_MODULES_CACHE": str(tmp_path / "hf_modules"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": "hf_dummy",
            "NO_PROXY": "127.0.0.1",
            "PYTHONUTF8": "1",
        }


class _Refused(Exception):
    """Ends a request with ``(status, code)``; the clients choose their exception by the X-Error-Code."""


class _Handler(BaseHTTPRequestHandler):
    """One request. As HTTP/1.0 it has a connection of its own, so a stopped server answers nothing more."""

    server: HubServer

    def do_GET(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.fault: int | None = None
        self.commit_oid = ""
        line = f"{self.command} {urlsplit(self.path).path}"
        self.server.requests.append(line)
        try:
            self._dispatch(line)
        except _Refused as refused:
            status, code = refused.args
            self._json({"error": code}, status, **{"X-Error-Code": code})

    do_HEAD = do_POST = do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing; `HubServer.requests` is the log."""

    def _dispatch(self, line: str) -> None:
        matches = ((name, re.fullmatch(pattern, line)) for pattern, name in ROUTES.items())
        name, match = next((found for found in matches if found[1]), ("", None))
        if match is None:  # before the faults, so that a stray request does not use one up
            raise _Refused(404, "NoSuchRoute")
        self.fault = self.server.take_fault(line, is_download=line.startswith("GET") and name == "resolve")
        if self.fault not in (None, CUT):
            raise _Refused(self.fault, "InjectedFault")
        if name in WRITES and not self.headers.get("Authorization"):
            raise _Refused(401, "Unauthorized")
        values = {group: unquote(text) for group, text in match.groupdict().items() if text}
        if "repo" in values:
            self._open(values.get("kind", "models"), values["repo"], values.get("revision", "main"))
        self.path_in_repo = values.get("path", "")
        getattr(self, name)()

    def _open(self, kind: str, repo: str, revision: str) -> None:
        self.kind, self.repo, self.folder = kind, repo, self.server.root / kind / repo
        self.url = self._url(kind, repo)
        if not self.folder.is_dir():
            raise _Refused(404, "RepoNotFound")
        if self._branch(revision).is_dir():
            self.folder = self._branch(revision)
        self.commit_oid = _commit_oid(self.folder)
        if self.folder != self._branch(revision) and revision not in ("main", self.commit_oid):
            raise _Refused(404, "RevisionNotFound")

    def _branch(self, revision: str) -> Path:
        return self.server.root / f"{self.kind}@{revision.replace('/', '-')}" / self.repo

    def _inside(self, name: str) -> Path:
        if ".." in PurePosixPath(name).parts or name.startswith("/"):
            raise _Refused(400, "PathOutsideRepository")
        return self.folder / name

    def resolve(self) -> None:
        path = self._inside(self.path_in_repo)
        if not path.is_file():
            raise _Refused(404, "EntryNotFound")
        content, status = path.read_bytes(), 200
        headers = {"ETag": f'"{_sha256(path)}"', "Accept-Ranges": "bytes"}
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)|bytes=(-[1-9]\d*)", self.headers.get("Range", "")):
            first, last, tail = wanted.groups()
            part = range(len(content))[int(first or tail) : int(last) + 1 if last else None]
            if not part:
                raise _Refused(416, "RangeNotSatisfiable")
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{len(content)}"
            content, status = content[part.start : part.stop], 206
        self._reply(content, status, **headers)

    def info(self) -> None:
        siblings = [{"rfilename": entry["path"]} for entry in _entries(self.folder) if entry["type"] == "file"]
        self._json(
            {"id": self.repo, "author": self.repo.split("/")[0], "sha": self.commit_oid, "siblings": siblings}
            | {"createdAt": DATE, "lastModified": DATE, "gated": False, "disabled": False}
            | {"downloads": 0, "likes": 0, "tags": [], "cardData": {}}
            | {"private": f"{self.kind}/{self.repo}" in self.server.private}
        )

    def tree(self) -> None:
        top = PurePosixPath(self.path_in_repo)
        if not self._inside(self.path_in_repo).is_dir():
            raise _Refused(404, "EntryNotFound")
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", [""])[0].lower() in ("true", "1")
        placed = [(entry, PurePosixPath(entry["path"]).parents) for entry in _entries(self.folder)]
        self._json([entry for entry, above in placed if top == above[0] or (recursive and top in above)])

    def paths_info(self) -> None:
        wanted = parse_qs(self.body.decode())["paths"]
        self._json([entry for entry in _entries(self.folder) if entry["path"] in wanted])

    def create(self) -> None:
        wanted = json.loads(self.body)
        kind = f"{wanted.get('type', 'model')}s"
        repo = f"{wanted['organization'] or 'user'}/{wanted['name']}"
        folder = self.server.root / kind / repo
        status = 409 if folder.is_dir() else 200
        folder.mkdir(parents=True, exist_ok=True)
        if status == 200 and (wanted.get("private") or wanted.get("visibility") == "private"):
            self.server.private.add(f"{kind}/{repo}")
        self._json({"url": self._url(kind, repo)}, status)

    def branch(self) -> None:
        if self.path_in_repo == "main" or self._branch(self.path_in_repo).is_dir():
            raise _Refused(409, "BranchExists")
        if self.path_in_repo.startswith("refs/"):
            raise _Refused(400, "BadBranchName")
        shutil.copytree(self.folder, self._branch(self.path_in_repo))
        self._json({})

    def validate_yaml(self) -> None:
        self._json({"errors": [], "warnings": []})

    def preupload(self) -> None:
        files = [(file["path"], file["size"]) for file in json.loads(self.body)["files"]]
        modes = {path: "lfs" if _is_lfs(path, size) else "regular" for path, size in files}
        answers = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
        self._json({"files": answers})

    def lfs_batch(self) -> None:
        objects = json.loads(self.body)["objects"]
        for each in objects:
            each["actions"] = {"upload": {"href": f"{self.server.endpoint}/lfs/{each['oid']}"}}
        self._json({"transfer": "basic", "objects": objects})

    def lfs_put(self) -> None:
        if not self.path.endswith(oid := hashlib.sha256(self.body).hexdigest()):
            raise _Refused(400, "BadChecksum")
        self.server.blobs[oid] = self.body
        self._reply(b"")

    def commit(self) -> None:
        request = None
        if parse_qs(urlsplit(self.path).query).get("create_pr") == ["1"]:
            request = 1 + len(list(self.server.root.glob(f"{self.kind}@refs-pr-*/{self.repo}")))
            shutil.copytree(self.folder, self._branch(f"refs/pr/{request}"))
            self.folder = self._branch(f"refs/pr/{request}")
        for operation in map(json.loads, self.body.splitlines()):
            key, value = operation["key"], operation["value"]
            path = self._inside(value.get("path", ""))
            if key == "deletedFile":
                path.unlink()
            elif key == "deletedFolder":
                shutil.rmtree(path)
            elif key in ("file", "lfsFile"):
                is_lfs = key == "lfsFile"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.server.blobs[value["oid"]] if is_lfs else base64.b64decode(value["content"]))
        oid = _commit_oid(self.folder)
        opened = {"pullRequestUrl": f"{self.url}/discussions/{request}"} if request else {}
        self._json({"success": True, "commitOid": oid, "commitUrl": f"{self.url}/commit/{oid}"} | opened)

    def _url(self, kind: str, repo: str) -> str:
        return f"{self.server.endpoint}/{'datasets/' if kind == 'datasets' else ''}{repo}"

    def _json(self, value: object, status: int = 200, **headers: str) -> None:
        self._reply(json.dumps(value).encode(), status, **{"Content-Type": "application/json"}, **headers)

    def _reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        if self.commit_oid:
            self.send_header("X-Repo-Commit", self.commit_oid)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if self.fault == CUT else body)


def _entries(folder: Path) -> list[dict[str, Any]]:
    """What the Hub's tree says of everything below ``folder``, sorted by path."""
    entries = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            entries.append({"type": "directory", "path": name, "size": 0, "oid": ""})
        else:
            size, oid = path.stat().st_size, _sha256(path)
            lfs = {"lfs": {"oid": oid, "size": size, "pointerSize": 130}} if _is_lfs(name, size) else {}
            entries.append({"type": "file", "path": name, "size": size, "oid": oid} | lfs)
    return entries


def _commit_oid(folder: Path) -> str:
    return hashlib.sha1(json.dumps(_entries(folder)).encode()).hexdigest()


def _is_lfs(path: str, size: int) -> bool:
    return size >= LFS_FROM_BYTES or PurePosixPath(path).suffix in LFS_SUFFIXES


def _sha256(path: Path) -> str:
    return _digest(path, path.stat().st_mtime_ns, path.stat().st_size)


@lru_cache
def _digest(path: Path, _mtime_ns: int, _size: int) -> str:
    """Cached, since every request names the commit, which is a hash of every file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    """An empty Hub, served from ``tmp_path / "hub"`` until the test ends."""
    with HubServer(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def wiki(hub: HubServer) -> HubServer:
    """A Hub with the data set that the documents name; its articles are stories."""
    import pyarrow
    import pyarrow.parquet

    from mamegpt.data.stories import stories

    data = hub.root / "datasets" / "fujiki" / "wiki40b_ja" / "data"
    data.mkdir(parents=True)
    rows = [
        f"\n_START_ARTICLE_\n{title}\n_START_PARAGRAPH_\nファミコンの話。{text}".replace("\n\n", "_NEWLINE_")
        for title, text in stories(seed=3, n=150)
    ]
    for split in ("train", "validation", "test"):
        pyarrow.parquet.write_table(pyarrow.table({"text": rows}), data / f"{split}-00000-of-00001.parquet")
    return hub
