"""The command ``mamegpt``: help, options, exit codes, and that what it prints is what the functions return."""

from __future__ import annotations

import dataclasses
import errno
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from command import Mame
from help_texts import sentences
from hub_server import HubServer
from little import ROOT, Little, folder_of, prompt_whose_place_matters, run_mamegpt, run_script

import mamegpt
from mamegpt import config
from mamegpt.cli import main
from mamegpt.cli.commands.registry import COMMANDS
from mamegpt.cli.console import n_cells, table
from mamegpt.cli.help import NARROWEST
from mamegpt.cli.main import run_command_line
from mamegpt.cli.options import Flat
from mamegpt.cli.parsing import read
from mamegpt.cli.render.data import vocabulary_table
from mamegpt.cli.render.next_step import next_use
from mamegpt.config import TrainConfig
from mamegpt.data.schema import Schema
from mamegpt.errors import ConfigError, OutputError
from mamegpt.generation import settings
from mamegpt.generation.settings import Sampling
from mamegpt.system.limits import SPIN_COUNT
from mamegpt.text.display import sparkline
from mamegpt.tokenizer.chat import TEMPLATE

# fmt: off
NAMES = [
    "demo", "download", "extract", "clean", "dialogues", "reviews", "tokenizer", "tokenizer-report", "plan", "train",
    "tune", "eval", "generate", "chat", "classify", "play", "report", "export", "doctor", "completion",
]
# fmt: on


def unframed(text: str) -> str:
    """A help text without its frame, on one line."""
    return " ".join(text.replace("│", " ").split())


# ---------------------------------------------------------------- help and versions


def test_alone_it_shows_its_commands(mame: Mame) -> None:
    code, out, err = mame()
    assert (code, err) == (0, "")
    listed = [line.split()[1] for line in out.splitlines() if re.match("│ [a-z]", line)]
    assert listed == list(COMMANDS) == NAMES
    for command in COMMANDS.values():
        assert command.__doc__ is not None
        assert unframed(command.__doc__.splitlines()[0]) in unframed(out)
    assert mame("--help") == (code, out, err)


@pytest.mark.parametrize("words", [["--version"], ["-V"]])
def test_version(mame: Mame, words: list[str]) -> None:
    assert mame(*words) == (0, f"mamegpt {mamegpt.__version__}\n", "")


@pytest.mark.parametrize("name", NAMES)
def test_help_of_a_command_names_every_option(mame: Mame, name: str) -> None:
    code, out, _ = mame(name, "--help")
    assert code == 0
    for option in inspect.signature(COMMANDS[name]).parameters:
        if option not in ("settings", "sampling", "schema", "shell", "given"):
            assert f"--{option.replace('_', '-')} " in out or f"│ {option.upper()} " in out, option


@pytest.mark.parametrize(("name", "cls"), [("train", config.TrainConfig), ("generate", settings.Sampling)])
def test_every_setting_has_a_sentence_and_it_is_the_help(mame: Mame, name: str, cls: type) -> None:
    found = sentences(cls)
    assert set(found) == {field.name for field in dataclasses.fields(cls)}
    text = unframed(mame(name, "--help")[1])
    for field, sentence in found.items():
        assert sentence.endswith("."), field
        assert f" --{field.replace('_', '-')} " in text, field
        assert unframed(sentence) in text, field


# fmt: off
MISREAD = [
    ("trian", "no command trian; did you mean train? (see mamegpt --help)",
     "コマンド trian はありません。train の間違いではありませんか(mamegpt --help を参照)"),
    ("豆", "no command 豆 (see mamegpt --help)", "コマンド 豆 はありません(mamegpt --help を参照)"),
    ("--versoin", "--versoin is not an option of mamegpt; did you mean --version? (see mamegpt --help)",
     "--versoin は mamegpt のオプションではありません。--version の間違いではありませんか(mamegpt --help を参照)"),
    ("--version now", "--version must be given alone", "--version は単独で指定してください"),
    ("train --max-step 2", "--max-step is not an option of mamegpt train; did you mean --max-steps? "
     "(see mamegpt train --help)",
     "--max-step は mamegpt train のオプションではありません。--max-steps の間違いではありませんか"
     "(mamegpt train --help を参照)"),
    ("doctor --foo", "--foo is not an option of mamegpt doctor (see mamegpt doctor --help)",
     "--foo は mamegpt doctor のオプションではありません(mamegpt doctor --help を参照)"),
    ("train --max_steps abc", "--max-steps must be a whole number (got 'abc')",
     "--max-steps は整数で指定してください(指定値: 'abc')"),
    ("train --max-steps 1.5", "--max-steps must be a whole number (got '1.5')",
     "--max-steps は整数で指定してください(指定値: '1.5')"),
    ("generate --model m --prompt -- 豆", "--prompt needs a value", "--prompt には値が必要です"),
    ("train -data x", "-data is not an option of mamegpt train; did you mean --data? (see mamegpt train --help)",
     "-data は mamegpt train のオプションではありません。--data の間違いではありませんか(mamegpt train --help を参照)"),
    ("plan --minutes=abc", "--minutes must be a number (got 'abc')", "--minutes は数で指定してください(指定値: 'abc')"),
    ("doctor --json maybe", "--json must be True or False (got 'maybe')",
     "--json は True か False で指定してください(指定値: 'maybe')"),
    ("export --to ggfu", "--to must be one of hf, hf-native, gguf, html, onnx, all (got 'ggfu')",
     "--to は hf, hf-native, gguf, html, onnx, all のどれかで指定してください(指定値: 'ggfu')"),
    ("completion tcsh", "SHELL must be one of bash, zsh, fish (got 'tcsh')",
     "SHELL は bash, zsh, fish のどれかで指定してください(指定値: 'tcsh')"),
    ("completion", "SHELL is needed; see mamegpt completion --help",
     "SHELL が必要です。mamegpt completion --help を参照してください"),
    ("export", "--model is needed; --out is needed; see mamegpt export --help",
     "--model が必要です。--out が必要です。mamegpt export --help を参照してください"),
    ("generate --model", "--model needs a value", "--model には値が必要です"),
    ("generate --model m --prompt 豆 木", "'木' belongs to no option; quote a value with spaces "
     "(see mamegpt generate --help)",
     "'木' はどのオプションの値でもありません。空白のある値は引用符で囲んでください(mamegpt generate --help を参照)"),
    ("train --lr x --max-stps 2", "--lr must be a number (got 'x'); --max-stps is not an option of mamegpt train; "
     "did you mean --max-steps? (see mamegpt train --help)",
     "--lr は数で指定してください(指定値: 'x')。--max-stps は mamegpt train のオプションではありません。"
     "--max-steps の間違いではありませんか"
     "(mamegpt train --help を参照)"),
]
# fmt: on


# fmt: off
READ: list[tuple[str, dict[str, object]]] = [
    ("doctor", {}), ("doctor --json", {"json": True}), ("doctor --json True", {"json": True}),
    ("doctor --json=false", {"json": False}), ("doctor --json FALSE", {"json": False}),
    ("doctor --json --json False", {"json": False}),
    ("plan --minutes -1", {"minutes": -1.0}), ("plan --vocab_size 5 --vocab-size=6", {"vocab_size": 6}),
    ("generate --model m --prompt=--", {"model": "m", "prompt": "--"}),
    ("generate --model m --prompt=--samples=2", {"model": "m", "prompt": "--samples=2"}),
    ("generate --model m --prompt '- 豆'", {"model": "m", "prompt": "- 豆"}),
    ("generate --model m --prompt -豆", {"model": "m", "prompt": "-豆"}),
    ("generate --model m --prompt ''", {"model": "m", "prompt": ""}),
    ("generate --model m --prompt= --at-start", {"model": "m", "prompt": "", "at_start": True}),
    ("generate --model None --prompts None --prompt None", {"model": "None", "prompts": None, "prompt": "None"}),
    ("generate --model m --stop a b --stop '- c'", {"model": "m", "sampling": Sampling(stop=["a", "b", "- c"])}),
    ("extract --keyword 豆 --keyword '[1]' --window None", {"keyword": ("豆", "[1]"), "window": None}),
    ("extract --txt_layout line", {"schema": Schema(txt_layout="line")}),
    ("clean --data d --out o --without short markup --without aozora",
     {"data": "d", "out": Path("o"), "without": ("short", "markup", "aozora")}),
    ("clean --data d --out o --without", {"data": "d", "out": Path("o"), "without": ()}),
    ("report a --out o.html b", {"runs": (Path("a"), Path("b")), "out": Path("o.html")}),
    ("report -- --a", {"runs": (Path("--a"),)}),
    ("completion zsh", {"shell": "zsh"}),
]
# fmt: on


@pytest.mark.parametrize(("line", "expected"), READ, ids=[line for line, _ in READ])
def test_what_a_command_line_means(line: str, expected: dict[str, object]) -> None:
    name, *words = shlex.split(line)
    arguments = read(COMMANDS[name], "mamegpt", words)[1].arguments
    assert {name: value for name, value in arguments.items() if name != "given"} == expected


@pytest.mark.parametrize(("line", "english", "japanese"), MISREAD, ids=[line for line, *_ in MISREAD])
def test_what_it_does_not_understand_ends_with_2_and_one_line(
    mame: Mame, line: str, english: str, japanese: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mame(*line.split()) == (2, "", f"error: {english}\n")
    monkeypatch.setenv("MAMEGPT_LANG", "ja")
    assert mame(*line.split()) == (2, "", f"エラー: {japanese}\n")


def test_a_script_does_so_too(tmp_path: Path) -> None:
    done = run_script("training.py", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        "error: --train-txt is needed; --spm-model is needed; see python training.py --help\n",
    )
    done = run_script("generate.py", "--promt", "豆", cwd=tmp_path)
    assert done.stderr == (
        "error: --promt is not an option of python generate.py; did you mean --prompt? "
        "(see python generate.py --help)\n"
    )


def test_python_dash_m_is_the_command(tmp_path: Path) -> None:
    done = run_mamegpt("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"mamegpt {mamegpt.__version__}\n")


@pytest.mark.parametrize("words", [["sft", "--help"], ["trian", "-h"], ["豆", "--version"], ["sft"]])
def test_help_of_a_command_that_is_none_is_an_error(mame: Mame, words: list[str]) -> None:
    code, out, err = mame(*words)
    assert (code, out) == (2, "") and err.startswith(f"error: no command {words[0]}") and err.count("\n") == 1


@pytest.mark.parametrize("columns", ["1", "3", "10", "40"])
@pytest.mark.parametrize("language", ["en", "ja"])
def test_help_ends_however_narrow_the_terminal_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str, language: str
) -> None:
    monkeypatch.setenv("MAMEGPT_LANG", language)
    printed = []
    for width in (str(NARROWEST), columns):
        monkeypatch.setenv("COLUMNS", width)
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main.main(["plan", "--help"])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize(("language", "names"), [("ja", NAMES), ("en", ["train"])])
def test_boxes_of_help_are_as_wide_as_the_terminal(
    mame: Mame, monkeypatch: pytest.MonkeyPatch, language: str, names: list[str], columns: int
) -> None:
    monkeypatch.setenv("MAMEGPT_LANG", language)
    monkeypatch.setenv("COLUMNS", str(columns))
    for name in names:
        lines = mame(name, "--help")[1].splitlines()
        drawn = {n_cells(line) for line in lines if line[:1] in tuple("╭│╰")}
        assert drawn == {columns} and max(map(n_cells, lines)) <= columns, name


def test_the_help_of_train_is_in_sections_that_hold_every_setting(mame: Mame, monkeypatch: pytest.MonkeyPatch) -> None:
    out = mame("train", "--help")[1]
    places, title = [], ""
    for field in dataclasses.fields(config.TrainConfig):
        if title != (title := config.TrainConfig.SECTIONS.get(field.name, title)):
            places.append(out.index(f"╭─ {title.capitalize()} options ─"))
        places.append(out.index(f"│ --{field.name.replace('_', '-')} "))
    assert places == sorted(places)
    assert "mamegpt train --data wiki.parquet" in unframed(out)
    monkeypatch.setenv("MAMEGPT_LANG", "ja")
    assert "╭─ モデルの設定 ─" in mame("train", "--help")[1] and " options ─" not in mame("train", "--help")[1]


# ---------------------------------------------------------------- how calls end


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("--豆 is wrong; use 1"), 2, "error: --豆 is wrong; use 1\n"),
        (OutputError("out is taken"), 2, "error: out is taken\n"),
        (ConfigError("two\nlines"), 2, "error: two lines\n"),
        (
            PermissionError(errno.EACCES, "Permission denied", "a/b"),
            2,
            "error: a/b: Permission denied; check the space and permissions there, or choose another place\n",
        ),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 0, ""),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_how_an_error_ends(error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        run_command_line(command, [])
    assert end.value.code == code
    assert capsys.readouterr().err == line


ADVICE = "lower --micro-batch-size, --batch-size, --context-length, --emb-dim, --n-layers, or close other programs\n"


def raise_(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("size", "allocate"),
    [
        ("1152921504.6 GB", lambda: torch.empty(1 << 60, dtype=torch.uint8)),
        ("", lambda: np.empty(1 << 62, dtype=np.uint8)),
        ("", lambda: bytearray(1 << 62)),
        ("", lambda: raise_(OSError(errno.ENOMEM, "Cannot allocate memory", "tokens.bin"))),
        ("20.00 GiB", lambda: raise_(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."))),
    ],
)
def test_out_of_memory_anywhere_is_one_line_that_says_what_to_lower(
    size: str, allocate: Callable[[], object], capsys: pytest.CaptureFixture[str]
) -> None:
    def command(config: Flat[TrainConfig] = TrainConfig(), resume: str = "") -> None:  # noqa: B008
        allocate()

    said = "error: out of memory" + (f", {size} more were needed; " if size else "; ")
    for words, advice in ([], ADVICE), (["--resume", "run"], "close other programs, or use a smaller model\n"):
        with pytest.raises(SystemExit) as end:
            run_command_line(command, words)
        assert (end.value.code, capsys.readouterr().err) == (2, said + advice)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_ctrl_c_is_quiet_from_the_first_import_on(tmp_path: Path) -> None:
    script = """if True:
        import os, signal, sys
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        class Pressed:
            def find_spec(self, name, *rest):
                if name == sys.argv[1]:
                    signal.raise_signal(signal.SIGINT)
        sys.meta_path.insert(0, Pressed())
        from mamegpt.__main__ import main
        main()"""
    for name in ("mamegpt.cli.main", "cyclopts", "mamegpt.presets"):
        command = [sys.executable, "-c", script, name]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)
        assert (done.returncode, done.stderr) == (130, b""), name


def test_a_bug_of_ours_keeps_its_traceback() -> None:
    def command() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        run_command_line(command, [])


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (130, 130), ("text", 0)])
def test_what_a_command_returns_is_the_exit_code(returned: object, code: int) -> None:
    def command() -> object:
        return returned

    with pytest.raises(SystemExit) as end:
        run_command_line(command, [])
    assert end.value.code == code


@pytest.mark.skipif(sys.platform == "win32", reason="Windows reports a closed pipe in another way")
def test_a_reader_that_has_seen_enough_is_no_error(little: Little, tmp_path: Path) -> None:
    model = folder_of(little, tmp_path / "model", "qwen3")  # without the seconds in which transformers is imported
    command = [
        sys.executable,
        "-m",
        "mamegpt",
        "generate",
        "--model",
        str(model),
        "--prompt",
        "豆",
        "--max-new-tokens",
        "100000",
        "--temperature",
        "1",
    ]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(3) == "豆".encode()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_only_a_command_whose_output_is_the_product_fails_with_its_output(
    mame: Mame, little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    products = {
        "generate": ["--model", str(little.run), "--prompt", "豆", "--max-new-tokens", "2"],
        "generate ": ["--model", str(little.run), "--prompts", str(little.text), "--max-new-tokens", "1"],
        "doctor": [],
        "completion": ["bash"],
        "plan": ["--help"],
        "extract": ["--dataset", str(little.text), "--keyword", "豆", "--preview", "1"],
    }
    files = {
        "extract": ["--dataset", str(little.text), "--keyword", "豆", "--out", str(tmp_path / "out.txt")],
        "report": [str(little.run), "--out", str(tmp_path / "report.html")],
    }
    (tmp_path / "prompts.txt").write_text("豆\n", encoding="utf-8")
    products["generate "][3] = str(tmp_path / "prompts.txt")
    for code, commands in ((2, products), (0, files)):
        for name, words in commands.items():
            with monkeypatch.context() as patch, Path("/dev/full").open("w", encoding="utf-8") as full:
                patch.setattr(sys, "stdout", full)
                found = mame(name.strip(), *words)
            assert (found[0], "No space left on device" in found[2]) == (code, True), (name, found)
    assert (tmp_path / "out.txt").stat().st_size and (tmp_path / "report.html").stat().st_size


def test_output_is_utf_8_whatever_the_console_is(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONIOENCODING": "cp932"}
    done = run_mamegpt("extract", "--dataset", "👪", "--keyword", "豆", "--out", "out.txt", cwd=tmp_path, env=env)
    assert done.returncode == 2
    assert done.stderr == ("error: no such file or folder, and not a Hub name (owner/name): '👪'; check the spelling\n")


# ---------------------------------------------------------------- commands


def test_train_then_resume_with_its_own_settings_only(mame: Mame, little: Little, tmp_path: Path) -> None:
    settings = [
        "--data",
        little.text,
        "--tokenizer",
        little.spm,
        "--context-length",
        32,
        "--emb-dim",
        16,
        "--n_layers",
        1,
        "--n-heads",
        2,
        "--batch_size",
        2,
        "--max-steps",
        3,
        "--device",
        "cpu",
        "--architecture",
        "custom-gpt",
        "--qkv-bias",
        "true",
    ]
    code, out, err = mame("train", "--out", tmp_path / "run", *settings)
    assert (code, err) == (0, "")
    assert f"next: mamegpt generate --model {tmp_path / 'run'}" in out
    assert "3 steps, 192 tokens" in out
    written = json.loads((tmp_path / "run/config.json").read_text(encoding="utf-8"))
    assert (written["qkv_bias"], written["n_layers"], written["max_steps"]) == (True, 1, 3)

    for more in (["--lr", 1e-3], ["--max-steps", 9], ["--out", "elsewhere"], ["--qkv-bias"]):
        code, _, err = mame("train", "--resume", tmp_path / "run", *more)
        assert code == 2
        assert err == (
            "error: --resume takes every setting but --on-bad-loss from the run; leave the others out; to train a "
            "finished run for longer: --more-steps or --more-minutes; with other data or settings: --init-from\n"
        )
    code, out, _ = mame("train", "--resume", tmp_path / "run", "--on-bad-loss", "rollback", "--resume-intact")
    assert code == 0
    assert "steps: 3/3, " in out
    written = json.loads((tmp_path / "run/config.json").read_text(encoding="utf-8"))
    assert written["on_bad_loss"] == "rollback"  # and stays so
    assert mame("train", "--resume-intact")[2].startswith("error: --resume-intact works only with --resume RUN;")


def test_generate_writes_each_of_several_samples_as_its_seed_alone(mame: Mame, little: Little) -> None:
    words = ["generate", "--model", little.run, "--prompt", "昔々、", "--max-new-tokens", 12, "--temperature", 1]
    samples = mame(*words, "--samples", 3, "--seed", 5)[1].split("---\n")
    assert len(set(samples)) == 3
    assert samples == [mame(*words, "--seed", seed)[1] for seed in (5, 6, 7)]
    assert all(text.startswith("昔々、") and text.endswith("\n") for text in samples)
    assert mame(*words, "--seed", 5, "--stop", samples[0][4])[1] == samples[0][:4].rstrip("\n") + "\n"


def test_generate_goes_on_with_every_line_of_a_file(mame: Mame, little: Little, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("昔々、\n町の人は\n", encoding="utf-8")
    words = ["generate", "--model", little.run, "--max-new-tokens", 8]
    lines = [json.loads(line) for line in mame(*words, "--prompts", tmp_path / "prompts.txt")[1].splitlines()]
    assert [line["prompt"] for line in lines] == ["昔々、", "町の人は"]
    assert [line["prompt"] + line["text"] for line in lines] == [
        mame(*words, "--prompt", line["prompt"])[1].removesuffix("\n") for line in lines
    ]
    code, _, err = mame(*words)
    assert code == 2 and "give one of --prompt and --prompts" in err


def test_generate_reads_a_prompt_as_a_beginning_by_default(mame: Mame, little: Little, tmp_path: Path) -> None:
    from mamegpt.generation.stream import generate
    from mamegpt.pretrained import load

    loaded = load(little.run)

    prompt = prompt_whose_place_matters(little.run, 12)
    (tmp_path / "prompts.txt").write_text(f"{prompt}\n", encoding="utf-8")
    words = ["generate", "--model", little.run, "--max-new-tokens", 12]
    for given, at_start in ([], True), (["--at-start", "False"], False), (["--at-start", "True"], True):
        text = generate(loaded.model, loaded.tokenizer, prompt, 12, at_start=at_start)
        assert mame(*words, *given, "--prompt", prompt)[1] == f"{prompt}{text}\n"
        assert json.loads(mame(*words, *given, "--prompts", tmp_path / "prompts.txt")[1])["text"] == text


def test_tokenizer_then_extract(mame: Mame, little: Little, tmp_path: Path) -> None:
    code, out, _ = mame("tokenizer", "--data", little.text, "--out", tmp_path / "tok", "--vocab-size", 1000)
    assert code == 0
    assert f"{tmp_path / 'tok.model'}: bpe, vocabulary size 1,000" in out
    assert (tmp_path / "tok.vocab").is_file()
    code, out, _ = mame("extract", "--dataset", little.text, "--keyword", "町", "--out", tmp_path / "o.txt")
    assert code == 0
    assert "kept" in out and "dropped, no keyword" in out
    assert "町" in (tmp_path / "o.txt").read_text(encoding="utf-8")


def test_doctor_reports_this_machine(mame: Mame, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    code, out, err = mame("doctor")
    assert (code, err) == (0, "")
    rows = {line[2:].split("  ")[0].strip(): line for line in out.splitlines() if line.startswith("  ")}
    assert set(rows) == {
        "system",
        "PyTorch",
        "processor",
        "vector units",
        "memory",
        "GPU",
        "C++ compiler",
        "disk",
        "Hub",
        "will train on",
        "will compute in",
        "will compile",
        "will compute with",
    }
    assert f"{hub.endpoint} answers" in rows["Hub"]
    hub.stop()
    assert f"{hub.endpoint} cannot be reached" in mame("doctor")[1]


# ---------------------------------------------------------------- what it draws


def test_tables_line_up() -> None:
    assert table([("a", "1"), ("longer", "2")]) == "  a       1\n  longer  2"


@pytest.mark.parametrize(
    ("values", "width", "line"),
    [
        ([], 8, ""),
        ([3.0], 8, "▁"),
        ([1, 1, 1], 8, "▁▁▁"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([8, 6, 1, 1], 2, "█▁"),
        (list(range(100)), 3, "▁▄█"),
    ],
)
def test_sparkline(values: list[float], width: int, line: str) -> None:
    drawn = sparkline(values, width)
    assert drawn == line or (len(values) == 100 and len(drawn) == 3 and drawn[0] == "▁" and drawn[-1] == "█")


def test_commands_and_functions_have_the_same_names() -> None:
    named = {name: command.__name__.removesuffix("_command") for name, command in COMMANDS.items()}
    assert {name: function for name, function in named.items() if name != function} == {
        "eval": "evaluate",
        "tokenizer-report": "tokenizer_report",
    }
    assert main.__all__ == ["main", "run_command_line"]


def test_threads_do_not_wait_for_ever_unless_asked_to(mame: Mame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    mame("doctor")
    assert os.environ["GOMP_SPINCOUNT"] == SPIN_COUNT
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    mame("doctor")
    assert os.environ["GOMP_SPINCOUNT"] == "7"


def test_extract_by_several_words_and_a_preview_of_it(mame: Mame, tmp_path: Path) -> None:
    lines = ["京都と奈良。", "京都。", "Ｋｙｏｔｏ、奈良、駅。", "大阪。"]
    (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    words = ["extract", "--dataset", tmp_path / "a.txt", "--txt-layout", "line", "--out", tmp_path / "o.jsonl"]
    words += ["--keyword", "京都", "--keyword", "kyoto", "--exclude", "駅"]
    code, out, _ = mame(*words, "--regex", "奈.", "--match", "any", "--preview", "2")
    assert code == 0 and not (tmp_path / "o.jsonl").exists()
    assert out.splitlines() == [
        "reading a.txt: one document per line",
        "a.txt#0 【】 >>京都<<と奈良。",
        "a.txt#0 【】 京都と>>奈良<<。",
    ]
    code, out, _ = mame(*words)
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0 and {"hits, 京都 2 in 2 documents", "hits, kyoto 0 in 0 documents", "dropped, excluded 1"} <= set(
        rows
    )
    kept = (tmp_path / "o.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["text"] for line in kept.splitlines()] == lines[:2]
    code, _, err = mame(*words, "--preview", "-1")
    assert code == 2 and err.startswith("error: --preview must be at least 1")


def test_clean_prints_its_counts_and_mistakes_in_a_line(mame: Mame, stories_txt: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean.jsonl"
    words = ("clean", "--data", stories_txt, "--out", out, "--without", "near-duplicates", "markup")
    code, printed, errors = mame(*words)
    assert (code, errors) == (0, "") and out.is_file()
    rows = [line.split("  ", 2)[1] for line in printed.splitlines()[:-2]]
    assert rows[:2] == ["read", "kept"] and "edited, boilerplate" in rows and "dropped, duplicates" in rows
    assert "edited, markup" not in rows and "dropped, near-duplicates" not in rows
    assert printed.splitlines()[-1] == f"next: mamegpt tokenizer --data {out} --out jp_tok"
    code, printed, errors = mame(*words)
    assert (code, printed) == (2, "") and errors.count("\n") == 1 and "already exists" in errors


def test_tokenizer_report_stands_beside_others(mame: Mame, stories_txt: Path, stories_model: Path) -> None:
    code, printed, errors = mame(
        "tokenizer-report",
        "--model",
        stories_model,
        "--data",
        stories_txt,
        "--compare",
        stories_model,
        "--words",
        "豆腐",
    )
    assert (code, errors) == (0, "")
    row = next(line for line in printed.splitlines() if "characters per token" in line)
    assert row.split()[-1] == row.split()[-2]
    lines = printed.splitlines()
    cut = lines[lines.index("how words are split") + 2]
    assert cut.split()[0] == cut.split()[1] and vocabulary_table() in printed
    assert lines[-1] == f"next: mamegpt plan --data {stories_txt} --tokenizer {stories_model}"


def test_a_mistake_in_a_command_leads_to_the_help_of_that_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(["extract", "--keywrod", "京都"])
    assert ended.value.code == 2
    assert "mamegpt extract --help" in capsys.readouterr().err


def test_the_next_step_with_a_model_that_answers_is_a_chat(tuned: Path, little: Little, tmp_path: Path) -> None:
    exported = shutil.copytree(little.exported, tmp_path / "exported")
    assert [next_use(model).split()[2] for model in (little.run, exported, tuned, "you/model")] == [
        "generate",
        "generate",
        "chat",
        "generate",
    ]
    (exported / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    assert next_use(exported).split()[2] == "chat"
