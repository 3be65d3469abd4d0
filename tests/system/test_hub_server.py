"""The loopback Hub, tested with the real huggingface_hub client in subprocesses."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from hub_server import HubServer

README = "# 豆の本\n"
DIGITS = b"0123456789"
BIG = bytes(range(251)) * 12_000  # 3 MB, with no period that divides a power of two

CLIENT = """
import json, sys
from huggingface_hub import *
from huggingface_hub.errors import *

def outcome(call, *args, **options):
    try:
        return call(*args, **options)
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
        kinds = (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError)
        return next(kind.__name__ for kind in kinds if isinstance(error, kind))
    except HfHubHTTPError as error:
        return error.response.status_code
    except OSError as error:
        return type(error).__name__
"""


def run_client(hub: HubServer, tmp_path: Path, script: str, *args: Path) -> dict[str, Any]:
    """Run ``script`` after `CLIENT`; what it leaves in ``answer`` comes back."""
    code = f"{CLIENT}\n{script}\nprint(json.dumps(answer))"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        env=hub.env(tmp_path),
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def put(hub: HubServer, name: str, content: bytes) -> None:
    path = hub.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def fetch(url: str, **headers: str) -> tuple[int, bytes]:
    """GET without the user's proxy: status and body."""
    try:
        with build_opener(ProxyHandler({})).open(Request(url, headers=headers), timeout=10) as response:
            return response.status, response.read()
    except HTTPError as error:
        with error:
            return error.code, error.read()


def test_read_then_read_again_without_the_server(hub: HubServer, tmp_path: Path) -> None:
    put(hub, "datasets/mame/corpus/README.md", README.encode())
    put(hub, "datasets/mame/corpus/data/digits.bin", DIGITS)
    put(hub, "datasets/mame/corpus/data/日本語 テスト.txt", b"x")
    download = """
from pathlib import Path
file = hf_hub_download("mame/corpus", "data/digits.bin", repo_type="dataset")
some = Path(snapshot_download("mame/corpus", repo_type="dataset", allow_patterns=["*.md", "*.txt"]))
answer = {
    "content": Path(file).read_text(),
    "snapshot": sorted(path.relative_to(some).as_posix() for path in some.rglob("*.*") if path.is_file()),
}
"""
    questions = """
data = {"repo_type": "dataset"}
info = dataset_info("mame/corpus")
answer |= {
    "sha": info.sha,
    "siblings": sorted(sibling.rfilename for sibling in info.siblings),
    "year": info.last_modified.year,
    "files": sorted(list_repo_files("mame/corpus", **data)),
    "paths": {i.path: getattr(i, "size", None)
              for i in HfApi().get_paths_info("mame/corpus", ["data", "README.md", "none"], **data)},
    "by_sha": outcome(hf_hub_download, "mame/corpus", "README.md", revision=info.sha, **data),
    "missing_repo": outcome(hf_hub_download, "mame/none", "README.md"),
    "missing_info": outcome(dataset_info, "mame/none"),
    "missing_file": outcome(hf_hub_download, "mame/corpus", "none.txt", **data),
    "missing_revision": outcome(hf_hub_download, "mame/corpus", "README.md", revision="v9", **data),
    "part": HfFileSystem().cat_file("datasets/mame/corpus/data/digits.bin", start=3, end=6).decode(),
}
"""
    files = ["README.md", "data/digits.bin", "data/日本語 テスト.txt"]
    read = run_client(hub, tmp_path, download + questions)
    downloaded = {"content": DIGITS.decode(), "snapshot": files}
    assert read == downloaded | {
        "sha": read["sha"],
        "siblings": files,
        "year": 2026,
        "files": files,
        "paths": {"data": None, "README.md": len(README.encode())},
        "by_sha": read["by_sha"],
        "missing_repo": "RepositoryNotFoundError",
        "missing_info": "RepositoryNotFoundError",
        "missing_file": "EntryNotFoundError",
        "missing_revision": "RevisionNotFoundError",
        "part": "345",
    }
    assert Path(read["by_sha"]).read_text(encoding="utf-8") == README
    assert "HEAD /datasets/mame/corpus/resolve/main/data/digits.bin" in hub.requests

    hub.stop()
    hub.requests.clear()
    assert run_client(hub, tmp_path, download) == downloaded
    assert hub.requests == []


def test_create_upload_delete_and_download_again(hub: HubServer, tmp_path: Path) -> None:
    local = {"README.md": README.encode(), "weights/big.safetensors": BIG, "empty.txt": b""}
    for name, content in local.items():
        (tmp_path / "local" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "local" / name).write_bytes(content)
    script = """
import hashlib
from pathlib import Path
answer = {}
for kind in ("model", "dataset"):
    repo = {"repo_id": "mame/book", "repo_type": kind}
    url = create_repo(**repo)
    assert create_repo(**repo, exist_ok=True) == url and url.repo_id == "mame/book" and url.repo_type == kind
    pushed = upload_folder(**repo, folder_path=sys.argv[1])
    back = Path(snapshot_download(**repo))
    answer[kind] = {
        "again": outcome(create_repo, **repo),
        "anonymous": outcome(upload_folder, **repo, folder_path=sys.argv[1], token=False),
        "sha256": hashlib.sha256((back / "weights/big.safetensors").read_bytes()).hexdigest(),
        "snapshot_is_commit": back.name == pushed.oid,
        "lfs": {i.path: i.lfs is not None for i in HfApi().list_repo_tree(**repo, recursive=True)
                if hasattr(i, "lfs")},
    }
delete_file("empty.txt", **repo)
delete_folder("weights", **repo)
"""
    answer = run_client(hub, tmp_path, script, tmp_path / "local")
    assert answer["model"] == {
        "again": 409,
        "anonymous": 401,
        "sha256": hashlib.sha256(BIG).hexdigest(),
        "snapshot_is_commit": True,
        "lfs": {"README.md": False, "empty.txt": False, "weights/big.safetensors": True},
    }
    assert answer["dataset"] == answer["model"]
    assert f"PUT /lfs/{answer['model']['sha256']}" in hub.requests
    stored = hub.root / "models/mame/book"
    assert {p.relative_to(stored).as_posix(): p.read_bytes() for p in stored.rglob("*") if p.is_file()} == local
    assert [path.name for path in (hub.root / "datasets/mame/book").iterdir()] == ["README.md"]


def test_faults_and_what_the_client_makes_of_them(hub: HubServer, tmp_path: Path) -> None:
    files = {"head.txt": b"head", "get.txt": b"get", "big.bin": BIG * 8}
    for name, content in files.items():
        put(hub, f"models/mame/faulty/{name}", content)
    hub.fail_next(503, path_contains="HEAD /mame/faulty/resolve/main/head.txt")
    hub.fail_next(503, path_contains="GET /mame/faulty/resolve/main/get.txt")
    hub.fail_next(500, path_contains="GET /api/models/mame/faulty")
    hub.truncate_next("big.bin")
    script = """
from pathlib import Path
answer = {"info": [outcome(lambda: model_info("mame/faulty").id) for _ in range(2)]}
for name in ("head.txt", "get.txt", "get.txt", "big.bin", "big.bin"):
    path = outcome(hf_hub_download, "mame/faulty", name)
    answer.setdefault(name, []).append(path)
"""
    answer = run_client(hub, tmp_path, script)
    asked = [line.replace("mame/faulty/resolve/main/", "") for line in hub.requests]
    assert answer["info"] == [500, "mame/faulty"]
    assert Path(answer["head.txt"][0]).read_bytes() == b"head"
    assert Path(answer["get.txt"][1]).read_bytes() == b"get"
    assert Path(answer["big.bin"][1]).read_bytes() == files["big.bin"]
    # The client repeats a failed HEAD by itself. A failed or cut GET it repeats in the same call or leaves to
    # the caller, depending on its version; after two calls there were two requests either way.
    assert [asked.count(line) for line in ("HEAD /head.txt", "GET /get.txt", "GET /big.bin")] == [2, 2, 2]


@pytest.mark.parametrize(
    ("wanted", "status", "content"),
    [
        ("bytes=2-4", 206, b"234"),
        ("bytes=7-", 206, b"789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=5-99", 206, b"56789"),
        ("bytes=10-", 416, None),
        ("lines=1-2", 200, DIGITS),
    ],
)
def test_range(hub: HubServer, wanted: str, status: int, content: bytes | None) -> None:
    put(hub, "models/mame/a/digits.bin", DIGITS)
    answer = fetch(f"{hub.endpoint}/mame/a/resolve/main/digits.bin", Range=wanted)
    assert answer[0] == status
    assert content is None or answer[1] == content


def test_each_fault_is_used_once_and_only_by_what_it_is_meant_for(hub: HubServer) -> None:
    put(hub, "models/mame/a/digits.bin", DIGITS)
    url = f"{hub.endpoint}/mame/a/resolve/main/digits.bin"
    hub.fail_next(429, times=2, path_contains="digits")
    assert fetch(f"{hub.endpoint}/api/no-such-route/digits")[0] == 404
    assert fetch(f"{hub.endpoint}/api/models/mame/a")[0] == 200
    assert [fetch(url)[0] for _ in range(3)] == [429, 429, 200]


def test_nothing_outside_a_repository_is_served(hub: HubServer) -> None:
    put(hub, "models/mame/a/digits.bin", DIGITS)
    put(hub, "models/mame/secret.txt", b"secret")
    for path in ("..%2Fsecret.txt", "../secret.txt", f"/{hub.root.as_posix()}/models/mame/secret.txt"):
        assert fetch(f"{hub.endpoint}/mame/a/resolve/main/{path}")[0] == 400


def test_env_drops_the_users_own_settings(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HUGGING_FACE_HUB_TOKEN", "HTTPS_PROXY", "all_proxy"}
    for name in foreign | {"KEPT"}:
        monkeypatch.setenv(name, "1")
    env = hub.env(tmp_path)
    assert (env["KEPT"], env["HF_ENDPOINT"]) == ("1", hub.endpoint)
    assert not foreign & env.keys()
