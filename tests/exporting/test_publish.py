"""From an exported folder to the Hub: what goes up is what was shown, and comes back as the same model."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import HubServer
from little import ROOT, Little, run_mamegpt

from mamegpt.cli.main import main
from mamegpt.system.files import sha256_file

SCRIPT = """
import sys
from pathlib import Path
from mamegpt.cli.render.models import upload_table
from mamegpt.errors import MamegptError
from mamegpt.exporting.publish import upload_folder
from mamegpt.pretrained import load
try:
    print(upload_table(upload_folder(Path(sys.argv[1]), "mame/little", dry_run=sys.argv[2] == "dry")))
    if sys.argv[2] == "wet":
        print("back:", sum(p.numel() for p in load("mame/little", device="cpu").model.parameters()))
except MamegptError as error:
    print("error:", error)
"""


def run_push(folder: Path, how: str, env: dict[str, str]) -> str:
    command = [sys.executable, "-c", SCRIPT, str(folder), how]
    done = subprocess.run(command, env=env | {"PYTHONPATH": str(ROOT)}, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_what_was_shown_goes_up_and_comes_back(hub: HubServer, little: Little, tmp_path: Path) -> None:
    env = hub.env(tmp_path)
    shown = run_push(little.exported, "dry", env)
    assert hub.requests == [] and not (hub.root / "models").exists()
    assert shown.startswith("would go to mame/little, as one commit 'Upload model (mamegpt export)':\n")
    listed = dict(re.findall(r"^  (\S+) +[\d,]+ bytes  ([0-9a-f]{64})$", shown, re.MULTILINE))
    assert listed == {path.name: sha256_file(path) for path in little.exported.iterdir()}
    assert shown.rstrip().endswith((little.exported / "README.md").read_text(encoding="utf-8").rstrip())

    done = run_push(little.exported, "wet", env)
    assert f"uploaded to {hub.endpoint}/mame/little\n" in done
    n_parameters = sum(parameter.numel() for parameter in _parameters(little))
    assert f"back: {n_parameters}\n" in done
    there = hub.root / "models" / "mame" / "little"
    found = {path.name: sha256_file(path) for path in there.iterdir() if path.name != ".gitattributes"}
    assert found == listed

    hub.fail_next(403, path_contains="/preupload/")
    assert "cannot be uploaded to mame/little" in run_push(little.exported, "wet", env)
    anonymous = {name: value for name, value in env.items() if name != "HF_TOKEN"}
    refused = run_push(little.exported, "wet", anonymous)
    assert refused.startswith("error: ") and "hf auth login" in refused and refused.count("\n") == 1


def _parameters(little: Little):  # type: ignore[no-untyped-def]
    from mamegpt.pretrained import load

    return load(little.exported, device="cpu").model.parameters()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--gguf-type", "f16"], "--gguf-type f16 is for --to gguf (or all), not hf"),
        (["--dry-run"], "--dry-run shows what --push would upload"),
        (["--push", "nobody"], "--push nobody is no name on the Hub; give owner/name"),
        (["--push", "mame/little", "--to", "all"], "--push uploads one folder"),
    ],
)
def test_mistakes_are_said_before_anything_is_written(
    little: Little, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", "--model", str(little.run), "--out", str(tmp_path / "out"), *words])
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_exports_all_and_shows_what_would_go_up(hub: HubServer, little: Little, tmp_path: Path) -> None:
    env = hub.env(tmp_path)
    every = run_mamegpt("export", "--model", little.run, "--to", "all", "--out", "every", cwd=tmp_path, env=env)
    assert every.returncode == 0, every.stderr
    assert sorted(path.name for path in (tmp_path / "every").iterdir()) == ["gguf", "hf", "hf-native"]
    words = ["export", "--model", "every/hf-native", "--out", "one", "--push", "mame/one", "--dry-run"]
    done = run_mamegpt(*words, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert "would go to mame/one" in done.stdout and "\n# mame/one\n" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("nothing was sent; to send it: hf auth login")
    assert "next:" not in done.stdout
    assert hub.requests == []
