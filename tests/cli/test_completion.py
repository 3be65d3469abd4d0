"""``mamegpt completion``: scripts that the shells accept, and in bash what they complete."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from mamegpt.cli.commands.registry import COMMANDS
from mamegpt.cli.main import main


@pytest.fixture
def scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Path]:
    """The three scripts as files."""
    found = {}
    for shell in ("bash", "zsh", "fish"):
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(["completion", shell])
        assert not end.value.code
        found[shell] = tmp_path / shell
        found[shell].write_text(capsys.readouterr().out, encoding="utf-8")
    return found


def test_every_shell_accepts_its_script(scripts: dict[str, Path]) -> None:
    checked = [shell for shell in scripts if shutil.which(shell)]
    if not checked:
        pytest.skip("none of the shells is here")
    for shell in checked:
        done = subprocess.run([shell, "-n", scripts[shell]], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), shell
    assert all(name in path.read_text(encoding="utf-8") for path in scripts.values() for name in COMMANDS)


@pytest.mark.skipif(not shutil.which("bash") or not shutil.which("python3"), reason="the script asks bash and python3")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["tr"], {"train"}),
        (["export", "--gg"], {"--gguf-type"}),
        (["train", "--siz"], {"--size"}),
        (["train", "--device", "cp"], {"cpu"}),
        (["clean", "--without", "ma"], {"markup"}),
        (["completion", "b"], {"bash"}),
    ],
)
def test_bash_completes_commands_and_options(scripts: dict[str, Path], words: list[str], offered: set[str]) -> None:
    line = " ".join(["mamegpt", *words])
    script = (
        f"source {scripts['bash']}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; COMP_LINE='{line}'; "
        f"COMP_POINT={len(line)}; _mamegpt; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert set(done.stdout.split()) == offered, done.stderr
