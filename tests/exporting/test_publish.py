"""From an exported folder to the Hub: what goes up is what was shown, and comes back as the same model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer
from little import ROOT, Little, run_mamegpt

import mamegpt
from mamegpt.cli.main import main
from mamegpt.exporting import publish
from mamegpt.exporting.export import ExportReport
from mamegpt.system.files import sha256_file

SCRIPT = """
import json, sys
from pathlib import Path
from mamegpt.cli.render.models import upload_table
from mamegpt.errors import MamegptError
from mamegpt.exporting.upload import Push, upload_folder
for settings in json.loads(sys.argv[2]):
    try:
        print(upload_table(upload_folder(Path(sys.argv[1]), Push(**settings))), end="\\n----\\n")
    except MamegptError as error:
        print("error:", error, end="\\n----\\n")
if sys.argv[3:]:
    from mamegpt.pretrained import load
    print("back:", sum(p.numel() for p in load(sys.argv[3], device="cpu").model.parameters()))
"""


def run_push(folder: Path, env: dict[str, str], *pushes: dict[str, Any], back: str = "") -> list[str]:
    """What is printed of each upload, and of the model that is loaded ``back`` after them."""
    words = [str(folder), json.dumps(pushes), *([back] if back else [])]
    command = [sys.executable, "-c", SCRIPT, *words]
    done = subprocess.run(command, env=env | {"PYTHONPATH": str(ROOT)}, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout.split("----\n")


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.iterdir() if path.name != ".gitattributes"}


@pytest.mark.slow
def test_what_was_shown_goes_up_and_comes_back(hub: HubServer, little: Little, tmp_path: Path) -> None:
    env, place = hub.env(tmp_path), {"repository": "mame/little"}
    shown = run_push(little.exported, env, place | {"dry_run": True})[0]
    assert hub.requests == [] and not (hub.root / "models").exists()
    assert shown.startswith("would go to mame/little, as one commit 'Upload model (mamegpt export)':\n")
    assert "\nif mame/little does not exist, it is created, private\n" in shown
    listed = dict(re.findall(r"^  (\S+) +[\d,]+ bytes  ([0-9a-f]{64})$", shown, re.MULTILINE))
    assert listed == hashes(little.exported)
    assert shown.rstrip().endswith((little.exported / "README.md").read_text(encoding="utf-8").rstrip())

    done, back = run_push(little.exported, env, place, back="mame/little")
    assert "\ncreated the repository mame/little, private\n" in done
    assert re.search(rf"\nuploaded to {hub.endpoint}/mame/little/commit/[0-9a-f]{{40}}\n", done)
    n_parameters = sum(parameter.numel() for parameter in _parameters(little))
    assert back == f"back: {n_parameters}\n"
    assert hashes(hub.root / "models" / "mame" / "little") == listed

    (hub.root / "models" / "mame" / "little" / "README.md").unlink()  # there is something to send
    hub.fail_next(403, path_contains="/preupload/")
    assert "cannot be uploaded to mame/little" in run_push(little.exported, env, place)[0]
    anonymous = {name: value for name, value in env.items() if name != "HF_TOKEN"}
    refused = run_push(little.exported, anonymous, place)[0]
    assert refused.startswith("error: ") and "hf auth login" in refused and refused.count("\n") == 1


def _parameters(little: Little):  # type: ignore[no-untyped-def]
    from mamegpt.pretrained import load

    return load(little.exported, device="cpu").model.parameters()


def test_where_it_goes_and_who_may_see_it(hub: HubServer, tmp_path: Path) -> None:
    folder, models = tmp_path / "out", hub.root / "models"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlanguage:\n- ja\n---\n# 豆\n", encoding="utf-8")
    (models / "mame" / "open").mkdir(parents=True)
    (models / "mame" / "open" / "kept.txt").write_text("kept", encoding="utf-8")
    shown, branch, request, kept, mine, theirs, new, hidden, bad = run_push(
        folder,
        hub.env(tmp_path),
        {"repository": "mame/open", "revision": "v2", "private": False, "dry_run": True},
        {"repository": "mame/open", "revision": "v2"},
        {"repository": "mame/open", "create_pr": True},
        {"repository": "mame/open", "private": True},
        {"repository": "mame/mine", "private": False},
        {"repository": "mame/mine", "private": False},
        {"repository": "mame/new", "revision": "v1"},
        {"repository": "mame/new", "private": False},
        {"repository": "mame/new", "revision": "refs/x"},
    )[:-1]
    assert shown.startswith("would go to mame/open@v2, as one commit 'Upload")
    assert "\nif mame/open does not exist, it is created, public\n" in shown

    assert "\nmame/open exists and stays public\nuploaded to " in branch
    on_branch = hub.root / "models@v2" / "mame" / "open"
    assert sorted(path.name for path in on_branch.iterdir()) == ["README.md", "kept.txt"]
    assert f"uploaded to {hub.endpoint}/mame/open/discussions/1\n" in request
    assert (hub.root / "models@refs-pr-1" / "mame" / "open" / "README.md").is_file()
    assert kept.startswith(f"error: mame/open at {hub.endpoint} is public, and private changes no repository")
    assert [path.name for path in (models / "mame" / "open").iterdir()] == ["kept.txt"]

    assert "\ncreated the repository mame/mine, public\n" in mine and "\nmame/mine exists and stays public\n" in theirs
    assert "\ncreated the repository mame/new, private\n" in new
    assert list((models / "mame" / "new").iterdir()) == []  # the branch has it
    assert "mame/new at" in hidden and "is private, and private changes no repository" in hidden
    assert bad.startswith("error: ") and "cannot be uploaded to mame/new" in bad and bad.count("\n") == 1
    assert hub.private == {"models/mame/new"}
    assert not any(line.startswith(("PUT /api", "DELETE")) for line in hub.requests)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--gguf-type", "f16"], "--gguf-type f16 is for --to gguf (or all), not hf"),
        (["--dry-run"], "--dry-run shows what --push would upload"),
        (["--push", "nobody"], "--push must be a name on the Hub, owner/name (got nobody)"),
        (["--push", "mame/little", "--to", "all"], "--push uploads one folder"),
        (
            ["--private", "--revision", "v2", "--create-pr"],
            "leave out --private, --revision, --create-pr, which would do nothing without --push",
        ),
        (["--no-private"], "leave out --private, which would do nothing without --push"),
        (
            ["--push", "mame/little", "--create-pr", "--revision", "v2"],
            "--create-pr is a pull request against main; leave --revision v2 out",
        ),
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


def test_the_api_shows_what_would_go_up(little: Little, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = []

    def exported(*_: object, name: str, **__: object) -> ExportReport:
        named.append(name)
        return little.report

    monkeypatch.setattr(publish, "export_model", exported)
    assert mamegpt.export(little.exported, tmp_path / "out").upload is None
    upload = mamegpt.export(little.exported, tmp_path / "out", push="mame/bean", dry_run=True).upload
    assert upload is not None and {file.name: file.sha256 for file in upload.files} == hashes(little.exported)
    assert upload.private and upload.url == "" and named == ["", "mame/bean"]


@pytest.mark.slow
def test_the_command_exports_all_and_shows_what_would_go_up(hub: HubServer, little: Little, tmp_path: Path) -> None:
    env = hub.env(tmp_path)
    every = run_mamegpt("export", "--model", little.run, "--to", "all", "--out", "every", cwd=tmp_path, env=env)
    assert every.returncode == 0, every.stderr
    assert sorted(path.name for path in (tmp_path / "every").iterdir()) == ["gguf", "hf", "hf-native", "html"]
    words = ["export", "--model", "every/hf-native", "--out", "one", "--push", "mame/one", "--dry-run"]
    done = run_mamegpt(*words, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert "would go to mame/one" in done.stdout and "\n# mame/one\n" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("nothing was uploaded; to upload: hf auth login")
    assert "next:" not in done.stdout
    assert hub.requests == []
