"""The READMEs are equal to the program: their commands parse and run as written, their files and commands exist."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from hub_server import HubServer
from little import ROOT, Little, run_mamegpt, run_script
from readme import commands

READMES = ("README.md", "README.en.md")


def test_both_readmes_give_the_same_commands() -> None:
    japanese, english = (commands(name) for name in READMES)
    assert japanese == english and len(japanese) > 10


@pytest.mark.parametrize("name", READMES)
def test_every_linked_file_and_every_make_target_exists(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert len(links) >= 10 and all((ROOT / link).is_file() for link in links)
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {words[1] for words in commands(name) if words[0] == "make"} <= set(targets)


@pytest.mark.parametrize("name", READMES)
def test_ci_runs_the_lines_for_windows(name: str) -> None:
    block = re.search(r"```powershell\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    steps = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]["windows"]["steps"]
    runs = [step["run"].removesuffix(" --seconds 3") for step in steps if "run" in step]
    assert block[1].splitlines() == runs
    words = [line.split()[3:] for line in runs[1:]]  # after "python -m", the same as for other systems
    bash = [line[1:] if line[0] == "pip" else line for line in commands(name)]
    assert words[0] in bash and words[1] in bash and runs[3].endswith(" -m mamegpt demo")


def test_the_table_of_commands_is_complete() -> None:
    from mamegpt.cli.commands.registry import COMMANDS

    for name in READMES:
        text = (ROOT / name).read_text(encoding="utf-8")
        table = text[text.index("| `mamegpt demo`") :]
        assert all(f"`mamegpt {command}`" in table or f"`{command}`" in table for command in COMMANDS), name


@pytest.mark.slow
def test_the_quick_start_and_the_five_scripts_run_as_written(wiki: HubServer, little: Little, tmp_path: Path) -> None:
    """Word for word but for fewer, smaller steps; the Hub is a loopback one that holds the names the README uses."""
    model = wiki.root / "models" / "oga5" / "hf-jp-gpt-wiki"
    shutil.copytree(little.exported, model)
    (tmp_path / "my_texts").mkdir()
    shutil.copy(little.text, tmp_path / "my_texts" / "stories.txt")

    env = wiki.env(tmp_path)
    ran = []
    for words in commands("README.md"):
        if words[0] == "python" and words[1].endswith(".py"):
            smaller = ["--max-steps", "2"] if words[1] == "training.py" else []
            done = run_script(words[1], *words[2:], *smaller, cwd=tmp_path, env=env)
        elif words[0] == "mamegpt" and words[1] in ("tokenizer", "train", "generate", "export"):
            if words[1] == "tokenizer":
                words += ["--vocab-size", "1000"]
            if words[1] == "train":
                words[words.index("--minutes") :] = ["--size", "1m", "--max-steps", "2"]
            done = run_mamegpt(*words[1:], cwd=tmp_path, env=env)
        else:
            continue
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        ran.append(words[1])
    assert ran == [
        "tokenizer",
        "train",
        "generate",
        "export",
        "download_dataset.py",
        "make_dataset.py",
        "tokenizer",
        "training.py",
        "export_to_hf.py",
        "generate.py",
        "generate.py",
    ]


@pytest.mark.slow
def test_the_demo_makes_what_it_says(tmp_path: Path) -> None:
    done = run_mamegpt("demo", "--seconds", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "more training would help" in done.stdout and "mamegpt demo --seconds 4" in done.stdout
    for made in (
        "demo/stories.txt",
        "demo/tokenizer.model",
        "demo/run/checkpoints",
        "demo/hf/model.safetensors",
        "demo/dialogues.jsonl",
        "demo/tuned/checkpoints",
        "demo/browser/browser.html",
    ):
        assert (tmp_path / made).exists(), made
    assert re.search(r"^  text +demo/stories\.txt$", done.stdout, re.MULTILINE), done.stdout
    assert done.stdout.count("\n? ") == 3 and "questions that are in no training data" in done.stdout
    next_command = next(line for line in done.stdout.splitlines() if line.startswith("next: mamegpt "))
    again = run_mamegpt(*shlex.split(next_command)[2:], "--max-new-tokens", "5", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert run_mamegpt("demo", "--seconds", "1", cwd=tmp_path).returncode == 0
    assert (tmp_path / "demo-2" / "hf").is_dir()  # nothing of the first is touched
