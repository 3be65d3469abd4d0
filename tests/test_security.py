"""What docs/security.md says and no other test holds."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path

import pytest
from hub_server import HubServer
from little import ROOT, run_mamegpt

from mamegpt.cli.console import answering, deliver, say, show_stream
from mamegpt.cli.main import main
from mamegpt.text.display import visible

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


CONTROLS = "\x1b[31m\x9b\x07\r\u202e\u2066"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def print_all_ways() -> None:
    say(f"豆{CONTROLS}", "米\t")
    deliver(CONTROLS)
    show_stream(CONTROLS, ["豆", *CONTROLS])
    with answering(False) as answer:
        answer({}, CONTROLS)
    with answering(True) as answer:
        answer({"text": CONTROLS})


def test_a_terminal_is_sent_no_control_sequence_of_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, file = Terminal(), io.StringIO()
    for out in (terminal, file):
        monkeypatch.setattr("sys.stdout", out)
        print_all_ways()
    assert visible(CONTROLS) == "<U+001B>[31m<U+009B><U+0007><U+000D><U+202E><U+2066>"
    assert visible("豆\t米\n👩\u200d🔬") == "豆\t米\n👩\u200d🔬"
    assert not set(CONTROLS) - set("[31m") & set(terminal.getvalue())
    assert terminal.getvalue().startswith(f"豆{visible(CONTROLS)}\n米\t\n")
    assert file.getvalue().startswith(f"豆{CONTROLS}\n米\t\n{CONTROLS}\n{CONTROLS}豆{CONTROLS}\n"), "byte for byte"
    assert json.loads(file.getvalue().rpartition("{")[2].join("{\n"))["text"] == CONTROLS


def test_titles_and_names_reach_a_terminal_visibly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"title": f"題{CONTROLS}", "text": f"豆{CONTROLS}。"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row), encoding="utf-8")
    out, err = Terminal(), Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    (tmp_path / f"no{CONTROLS}.jsonl").write_text("{", encoding="utf-8")
    for dataset in (tmp_path / "a.jsonl", tmp_path / f"no{CONTROLS}.jsonl"):
        with pytest.raises(SystemExit):
            main(["extract", "--dataset", str(dataset), "--keyword", "豆", "--preview", "3"])
    assert "題<U+001B>[31m" in out.getvalue() and "no<U+001B>[31m" in err.getvalue()
    assert not set(CONTROLS) - set("[31m") & set(out.getvalue() + err.getvalue())


def test_only_one_function_prints() -> None:
    for path in (ROOT / "mamegpt").rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        n_prints = sum(ast.unparse(call.func) in ("print", "sys.stdout.write", "sys.stderr.write") for call in calls)
        assert n_prints == (path.name == "language.py"), path


def test_a_folder_s_modules_are_not_imported(tmp_path: Path) -> None:
    for name in ("torch", "cyclopts", "rich", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a module of the current folder ran')")
    done = run_mamegpt("--help", cwd=tmp_path)
    assert done.returncode == 0 and "mamegpt" in done.stdout, done.stderr
