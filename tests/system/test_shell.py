"""Command lines that are printed can be typed where they are printed, whatever names are in them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command import Mame
from hypothesis import given
from hypothesis import strategies as st
from little import ROOT, Little

from mamegpt.cli.render.next_step import next_step, next_text
from mamegpt.planning.plan import Cost
from mamegpt.system import shell
from mamegpt.system.shell import command

WORDS = st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8), max_size=5)
COSTS = [Cost("1m", 1_000_000, 5_000.0, 1 << 20, measured=True)]
NAMES = ["a b", "豆の本.txt", "it's", "$(rm x)", "a;b", "-x", "", 'q"q', "~/x", "a&b", "*"]


@given(WORDS)
def test_a_shell_reads_the_words_that_were_meant(words: list[str]) -> None:
    assert shlex.split(command("train", *words))[-len(words) - 1 :] == ["train", *words]


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX is asked")
def test_a_real_shell_does_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "_program", lambda: ["printf", "%s\\0"])
    done = subprocess.run(["sh", "-c", command(*NAMES)], capture_output=True, text=True, check=True)
    assert done.stdout.split("\0")[:-1] == NAMES


def test_windows_has_quotes_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(shell, "_program", lambda: ["mamegpt"])
    assert next_step("export", "--out", "a b", "--to", "hf") == 'next: mamegpt export --out "a b" --to hf'
    assert '--prompt ""' in next_text("m")
    monkeypatch.setattr(shell, "_program", lambda: [r"C:\Users\山田 太郎\mamegpt.exe"])
    assert command("demo") == r'& "C:\Users\山田 太郎\mamegpt.exe" demo'
    monkeypatch.setattr(shell, "_program", lambda: ["mamegpt"])
    said = command("豆\\本.txt", "a.txt,b.txt@0.5", "【町】", 'q"q', "c d\\", "a&b", "--n=3")
    assert said == r"""mamegpt 豆\本.txt "a.txt,b.txt@0.5" "【町】" "q\"q" "c d\\" "a&b" --n=3"""


def test_the_program_is_named_as_it_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scripts, elsewhere = tmp_path / ".venv" / "bin", tmp_path / "path"
    name = "mamegpt.exe" if sys.platform == "win32" else "mamegpt"
    for folder in (scripts, elsewhere):
        folder.mkdir(parents=True)
    monkeypatch.setattr("sysconfig.get_path", lambda which: str(scripts))
    monkeypatch.setattr(sys, "executable", str(scripts / "python"))
    monkeypatch.setenv("PATH", str(elsewhere))
    assert shlex.split(command("demo")) == [str(Path(".venv/bin/python")), "-m", "mamegpt", "demo"]
    (scripts / name).touch(mode=0o755)
    assert shlex.split(command("demo")) == [str(Path(".venv/bin", name)), "demo"]
    (elsewhere / name).touch(mode=0o755)  # that of another environment
    assert shlex.split(command("demo")) == [str(Path(".venv/bin", name)), "demo"]
    monkeypatch.chdir(elsewhere)
    assert shlex.split(command("demo")) == [str(scripts / name), "demo"]
    (elsewhere / name).unlink()
    (elsewhere / name).symlink_to(scripts / name)
    assert command("demo") == "mamegpt demo"


def test_a_model_is_tried_by_sampling_and_from_nothing() -> None:
    assert next_text("runs/a b") == (
        "next: mamegpt generate --model 'runs/a b' --prompt '' --temperature 0.7 --top-p 0.9"
    )


def test_no_command_line_with_a_name_in_it_is_put_together_elsewhere() -> None:
    pasted = re.compile(
        r"mamegpt (demo|extract|clean|tokenizer|plan|train|eval|generate|play|report|export) -[^\"'`]*\{"
    )
    next_line = re.compile(r"next: mamegpt")
    found = {
        path.name
        for path in (ROOT / "mamegpt").rglob("*.py")
        if any(
            next_line.search(line) or pasted.search(line)
            for line in path.read_text(encoding="utf-8").splitlines()
            if "豆GPT" not in line  # the card is read elsewhere
        )
    }
    assert found == set()


def test_commands_end_with_lines_that_can_be_typed(
    mame: Mame, little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = tmp_path / "豆 と 'それ'.txt"
    text.write_bytes(little.text.read_bytes())
    code, out, _ = mame("tokenizer", "--data", text.name, "--out", "t k", "--vocab-size", 1000)
    plan = shlex.split(out.splitlines()[-1].removeprefix("next: "))
    assert code == 0 and plan == ["mamegpt", "plan", "--data", text.name, "--tokenizer", "t k.model"]
    monkeypatch.setattr("mamegpt.planning.plan.measure", lambda vocab_size, device, seconds: ("fp32", COSTS))
    code, out, err = mame(*plan[1:], "--minutes", 3)
    assert code == 0, err
    train = shlex.split(out.splitlines()[-1].removeprefix("next: "))
    assert train == [
        "mamegpt",
        "train",
        "--data",
        text.name,
        "--tokenizer",
        "t k.model",
        "--out",
        "runs/first",
        "--size",
        "1m",
        "--minutes",
        "3",
    ]
    out = mame("plan", "--minutes", 3)[1]  # with nothing to train on yet, both steps, and the same size
    first, second = out.splitlines()[-1].removeprefix("next: ").split(", then ")
    assert (
        first == "mamegpt tokenizer --data corpus.txt --out jp_tok --for-minutes 3"
        and "--size 1m --minutes 3" in second
    )
