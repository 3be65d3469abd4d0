"""What docs/security.md says and no other test holds."""

from __future__ import annotations

import ast
from pathlib import Path

from hub_server import HubServer
from little import ROOT, run_mamegpt

TOKEN = "hf_aTokenThatNobodyMaySee"


def test_a_token_of_the_hub_is_neither_printed_nor_stored(hub: HubServer, tmp_path: Path) -> None:
    env = hub.env(tmp_path) | {"HF_TOKEN": TOKEN}
    done = run_mamegpt("download", "--dataset", "no/such", cwd=tmp_path, env=env)
    assert done.returncode == 2 and "no/such" in done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()] == []


def test_nothing_is_unpickled_or_run_that_was_read() -> None:
    """``torch.load`` stands only with ``weights_only``; no pickle, no eval, no unpacking of archives."""
    calls = []
    for path in (ROOT / "mamegpt").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in (
                    "eval",
                    "exec",
                    "os.system",
                    "pickle.load",
                    "pickle.loads",
                    "shutil.unpack_archive",
                )
                assert not called.startswith(("tarfile.", "zipfile.", "yaml.load"))
                if called == "torch.load":
                    calls.append({keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords})
    assert calls and all(call["weights_only"] == "True" for call in calls)
