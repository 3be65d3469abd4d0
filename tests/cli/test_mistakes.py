"""Typical mistakes: each ends with code 2 and one line that says what, where and what to do, and changes nothing."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch
from bomb import Bomb
from little import ROOT, Little, run_script
from scripts import entry

from mamegpt.cli.main import main, run_command_line
from mamegpt.data.stories import stories
from mamegpt.tokenizer.tokenizer import train_tokenizer

Home = Callable[..., tuple[int | str | None, str, str]]

SMALL = [
    "--context-length",
    "32",
    "--emb-dim",
    "16",
    "--n-layers",
    "1",
    "--n-heads",
    "2",
    "--batch-size",
    "2",
    "--max-steps",
    "2",
    "--device",
    "cpu",
]
TRAINING = ["training.py", "--train-txt", "stories.txt", "--spm-model", "jp.model", *SMALL]
TRAIN = ["train", "--data", "stories.txt", "--tokenizer", "jp.model", "--out", "new", *SMALL]
EXPORT = ["export_to_hf.py", "--weights", "model.pth", "--spm_model", "jp.model", "--out_dir", "new"]


def snapshot(folder: Path) -> dict[str, str]:
    """Every file below a folder and the hash of its content; hidden ones (locks) are not the user's."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def home(little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything in order, to be spoilt; the process stands in it."""
    folder = tmp_path / "home"
    shutil.copytree(little.run, folder / "run")
    shutil.copytree(little.exported, folder / "exported")
    for source, name in ((little.text, "stories.txt"), (little.spm, "jp.model"), (little.weights, "model.pth")):
        shutil.copy(source, folder / name)
    monkeypatch.chdir(folder)
    return folder


def call(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int | str | None, str]:
    """Run a script or a command of ``mamegpt``: exit code and what stands on standard error."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        if arguments[0].endswith(".py"):
            run_command_line(entry(arguments[0]), arguments[1:])
        else:
            main(arguments)
    return end.value.code, capsys.readouterr().err


def check(arguments: list[str], says: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    before = snapshot(folder)
    code, err = call(arguments, capsys)
    assert code == 2, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1 and err.endswith("\n")
    assert [words for words in says if words not in err] == [], err
    assert snapshot(folder) == before
    return err


def write(name: str, text: str, encoding: str = "utf-8") -> None:
    Path(name).write_text(text, encoding=encoding, newline="")


def flip(path: Path, at: int = -100) -> None:
    """Change one byte of a file and nothing else about it."""
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


def one(pattern: str) -> Path:
    (path,) = Path().glob(pattern)
    return path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_tokenizer(name: str, vocab_size: int) -> None:
    train_tokenizer([text for _, text in islice(stories(seed=8), 60)], Path(name), vocab_size=vocab_size)


def japanese(n: int) -> str:
    return "".join(text for _, text in stories(seed=5, n=n))


# fmt: off
MISTAKES: dict[str, tuple[list[str], Callable[[], object] | None, list[str]]] = {
    # A file that is not there.
    "no text (training.py)": (
        ["training.py", "--train-txt", "none.txt", "--spm-model", "jp.model"], None, ["none.txt", "make_dataset.py"],
    ),
    "no text (train)": (["train", "--data", "none.txt", *TRAIN[3:]], None, ["none.txt", "check the spelling"]),
    "no tokenizer": ([*TRAINING, "--spm-model", "none.model"], None, ["none.model", "give a .model file"]),
    "no weights": ([*EXPORT, "--weights", "none.pth"], None, ["no weights file none.pth"]),
    "no vocabulary": ([*EXPORT, "--spm_vocab", "none.vocab"], None, ["none.vocab", "leave --spm-vocab out"]),
    "no model": (["generate", "--model", "none", "--prompt", "豆"], None, ["no model none", "check the spelling"]),
    "no run": (["train", "--resume", "none"], None, ["no run in none", "config.json"]),
    "no split": (
        ["eval", "--model", "run", "--data", "stories.txt", "--split", "dev"], None, ["no split 'dev'", "train"],
    ),
    # Text in another encoding, empty text, text that is too short.
    "cp932 (training.py)": (
        TRAINING, lambda: write("stories.txt", japanese(9), "cp932"), ["stories.txt", "not UTF-8", "save it as UTF-8"],
    ),
    "cp932 (make_dataset.py)": (
        ["make_dataset.py", "--dataset", "old.txt", "--keyword", "豆"],
        lambda: write("old.txt", japanese(9), "cp932"), ["old.txt", "not UTF-8", "save it as UTF-8"],
    ),
    "cp932 (tokenizer)": (
        ["tokenizer", "--data", "old.txt", "--out", "tok"],
        lambda: write("old.txt", japanese(9), "cp932"), ["old.txt", "not UTF-8", "save it as UTF-8"],
    ),
    "empty text": (TRAINING, lambda: write("stories.txt", ""), ["stories.txt holds no text", "give one that does"]),
    "blank text": (TRAIN, lambda: write("stories.txt", "\n\n \n"), ["text"]),
    "text shorter than a window": (
        [*TRAINING, "--context-length", "4096"], lambda: write("stories.txt", "豆が一つ。\n"),
        ["tokens, but one sequence needs 4097", "use more text or a shorter --context-length"],
    ),
    # A tokenizer that does not belong to the model or the tokens.
    "other vocabulary (export)": (
        [*EXPORT, "--spm_model", "other.model"], lambda: other_tokenizer("other", 800),
        ["other.model has vocabulary size 800, but the model 1000", "the tokenizer it was trained with"],
    ),
    "other vocabulary (folder)": (
        ["generate.py", "--repo-id", "exported", "--prompt", "豆"],
        lambda: (other_tokenizer("other", 800), shutil.copy("other.model", "exported/jp_tok_wiki.model")),
        ["vocabulary size 800", "1000", "not the tokenizer the model was trained with"],
    ),
    "other tokenizer (shards)": (
        ["train", "--data", "run/tokens", "--tokenizer", "other.model", "--out", "new", *SMALL],
        lambda: other_tokenizer("other", 800), ["another tokenizer", "tokenize the text again"],
    ),
    # Sizes that cannot be, or are not those of the weights.
    "bad dimensions (training.py)": (
        [*TRAINING, "--emb-dim", "130", "--n-heads", "4"], None, ["--emb-dim 130", "--n-heads 4", "use 128 or 132"],
    ),
    "bad dimensions (export)": (
        [*EXPORT, "--n_heads", "5"], None, ["--emb-dim 32", "--n-heads 5", "use 30 or 35"],
    ),
    "contradicting size": (
        [*EXPORT, "--emb_dim", "64"], None, ["--emb-dim 64", "model.pth", "emb_dim 32", "leave it out"],
    ),
    "several at once": (
        [*TRAIN, "--lr", "0", "--batch-size", "0", "--drop-rate", "1.5"], None, ["--lr", "--batch-size", "--drop-rate"],
    ),
    "vocabulary too large": (
        ["tokenizer", "--data", "few.txt", "--out", "tok", "--vocab-size", "16000"],
        lambda: write("few.txt", japanese(2)), ["--vocab-size 16000 is too large", "use at most"],
    ),
    # A word that is nowhere, or none.
    "no keyword hit": (
        ["make_dataset.py", "--dataset", "stories.txt", "--keyword", "量子色力学", "--out", "new.txt"], None,
        ["none of the 120 documents", "量子色力学", "try a shorter keyword", "new.txt was not changed"],
    ),
    "empty keyword": (
        ["extract", "--dataset", "stories.txt", "--keyword", " ", "--out", "new.txt"], None,
        ["--keyword is empty", "give a keyword"],
    ),
    # A place that is taken.
    "run exists": ([*TRAIN, "--out", "run"], None, ["run already exists", "--resume run"]),
    "export exists": ([*EXPORT, "--out_dir", "exported"], None, ["exported already exists", "--overwrite"]),
    "tokenizer exists": (
        ["tokenizer", "--data", "stories.txt", "--out", "jp"], None, ["jp.model already exists", "--overwrite"],
    ),
    "out is a folder": (
        ["make_dataset.py", "--dataset", "stories.txt", "--keyword", "豆", "--out", "run"], None,
        ["run is a folder", "give the name of a file"],
    ),
    # A name that promises another format.
    "no format of text": (
        ["extract", "--dataset", "stories.txt", "--keyword", "豆", "--out", "z.docx"], None,
        ["z.docx", "cannot read .docx files back", ".jsonl, .parquet, .txt"],
    ),
    "no format of a report": (["report", "run", "--out", "r.txt"], None, ["r.txt: a report is .html"]),
    # Something else than what is asked for.
    "report of an exported model": (
        ["report", "exported"], None, ["exported is an exported model; give the folder of a run"],
    ),
    "empty text (eval)": (
        ["eval", "--model", "run", "--data", "none.txt"], lambda: write("none.txt", ""), ["none.txt holds no text"],
    ),
    # Damaged files.
    "corrupt checkpoint (generate)": (
        ["generate", "--model", "run", "--prompt", "豆"], lambda: flip(one("run/checkpoints/*/model.safetensors")),
        ["model.safetensors is damaged", "hash"],
    ),
    "corrupt checkpoint (resume)": (
        ["train", "--resume", "run"], lambda: flip(one("run/checkpoints/*/optimizer.safetensors")),
        ["optimizer.safetensors", "damaged", "--resume-intact"],
    ),
    "corrupt shard": (
        ["train", "--resume", "run"], lambda: flip(Path("run/tokens/train.bin")),
        ["train.bin is damaged", "tokenize the text again"],
    ),
    "truncated shard": (
        ["eval", "--model", "run", "--data", "run/tokens", "--split", "val"], lambda: cut(Path("run/tokens/val.bin")),
        ["val.bin has", "bytes where meta.json says", "tokenize the text again"],
    ),
    "truncated weights": (EXPORT, lambda: cut(Path("model.pth")), ["model.pth is truncated or is not a weights file"]),
    "truncated safetensors": (
        ["generate", "--model", "exported", "--prompt", "豆"], lambda: cut(Path("exported/model.safetensors")),
        ["model.safetensors is truncated"],
    ),
    "truncated tokenizer": (
        TRAINING, lambda: cut(Path("jp.model")), ["jp.model is not a complete SentencePiece model"],
    ),
    "code instead of weights": (
        EXPORT, lambda: torch.save({"tok_emb.weight": Bomb(Path("marker"))}, "model.pth"),
        ["model.pth was refused", "ask for a plain state dict or a .safetensors file"],
    ),
    # Settings of generation.
    "impossible sampling": (
        ["generate", "--model", "run", "--prompt", "豆", "--top-p", "2"], None, ["--top-p", "at most 1 (got 2.0)"],
    ),
    "no samples": (["generate", "--model", "run", "--prompt", "豆", "--samples", "0"], None, ["--samples", "(got 0)"]),
    "nothing to write": (["generate.py", "--repo-id", "exported", "--prompt", "豆", "--max-new-tokens", "0"], None,
                         ["--max-new-tokens must be at least 1"]),
    "another --spm-file": (
        ["generate.py", "--repo-id", "exported", "--prompt", "豆", "--spm-file", "jp.model"], None,
        ["exported has no jp.model", "choose with --spm-file from: jp_tok_wiki.model"],
    ),
}
# fmt: on


@pytest.mark.parametrize("name", MISTAKES)
def test_one_line_says_it_and_nothing_changes(home: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, spoil, says = MISTAKES[name]
    if spoil is not None:
        spoil()
    check(arguments, says, home, capsys)
    assert not (home / "marker").exists()  # what the bomb would make
    assert not (home / "new" / "config.json").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["demo", "--data", "none.txt", "--out", "a/new"],
        ["demo", "--data", "stories.txt", "--keyword", "量子色力学"],
        ["train", "--data", "none.txt", "--tokenizer", "jp.model", "--out", "runs/new", *SMALL],
        ["train", "--data", "stories.txt", "--tokenizer", "none.model", "--out", "new", *SMALL],
    ],
)
def test_what_fails_at_once_leaves_no_empty_folder(
    home: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(home.rglob("*"))
    assert call(words, capsys)[0] == 2
    assert sorted(home.rglob("*")) == before


def test_a_folder_that_was_there_stays(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("new").mkdir()
    check(["train", "--data", "none.txt", *TRAIN[3:]], ["none.txt"], home, capsys)
    assert Path("new").is_dir()


def test_the_corrected_command_works_after_a_mistake(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(["train", "--data", "none.txt", *TRAIN[3:]], ["none.txt"], home, capsys)
    assert call(TRAIN, capsys)[0] == 0
    assert (home / "new/checkpoints/step-00000002").is_dir()


def test_a_script_in_a_process_of_its_own_says_no_more_than_that_line(home: Path) -> None:
    write("few.txt", "豆が一つ。\n")
    before = snapshot(home)
    done = run_script(*TRAINING[:2], "few.txt", *TRAINING[3:], "--context-length", 256, cwd=home)
    assert done.returncode == 2
    n_tokens = len(_tokens(home / "jp.model", "豆が一つ。"))
    assert done.stderr == (
        f"error: the text has {n_tokens} tokens, but one sequence needs 257 "
        "(--context-length + 1); use more text or a shorter --context-length\n"
    )
    assert snapshot(home) == before


def _tokens(model: Path, text: str) -> list[int]:
    from mamegpt.tokenizer.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(model)
    return [*tokenizer.encode(text), 2]


# ---------------------------------------------------------------- a disk that is full

FULL_DISK = """
import resource, signal, sys
sys.path.insert(0, sys.argv[1])
from mamegpt.cli.main import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that the write fails with an error, as on a full disk
for limit in sys.argv[2].split(","):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    try:
        main(sys.argv[3:])
    except SystemExit as end:
        print(end.code)
"""
NO_SPACE: dict[str, list[str]] = {
    "text": ["extract", "--dataset", "stories.txt", "--keyword", "。", "--out", "stories-2.txt"],
    "tokenizer": ["tokenizer", "--data", "stories.txt", "--out", "tok", "--vocab-size", "1000"],
}


@pytest.mark.parametrize("what", NO_SPACE)
def test_no_space_left(
    home: Path, what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    err = check(NO_SPACE[what], ["No space left on device"], home, capsys)
    assert "place" in err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of the size of a file")
def test_weights_that_do_not_fit_on_the_disk(home: Path) -> None:
    before = snapshot(home)
    sizes = [(home / "exported" / name).stat().st_size for name in ("model.safetensors", "pytorch_model.bin")]
    assert sizes[0] < sizes[1]
    limits = f"{sizes[0] // 2},{sum(sizes) // 2}"  # too small for the first, for the second
    command = [sys.executable, "-c", FULL_DISK, str(ROOT), limits, "export", "--model", "run", "--out", "new"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=home, check=False)
    assert done.stdout.split() == ["2", "2"], done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: new cannot be written (") and "File too large" in line for line in lines)
    assert snapshot(home) == before
    assert [path.name for path in home.iterdir() if path.name.startswith(".")] == []
