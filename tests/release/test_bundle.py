"""The folder for machines without a network installs what it holds, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from release.bundle import hashed, tags, write_scripts
from release.wheels import PLATFORMS

HERE = f"3.{sys.version_info.minor}"
posix = pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX runs the script")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one wheel, whose name has a space."""
    folder = tmp_path / "a bundle"
    (folder / "wheels").mkdir(parents=True)
    with zipfile.ZipFile(folder / "wheels" / "beans-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("beans.py", "N = 5\n")
        wheel.writestr("beans-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: beans\nVersion: 1.0\n")
        wheel.writestr("beans-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("beans-1.0.dist-info/RECORD", "")
    return folder


def install(folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHON": sys.executable}
    words = ["sh", folder / "install.sh", "new"]
    return subprocess.run(words, cwd=folder.parent, env=env, capture_output=True, encoding="utf-8", check=False)


@posix
@pytest.mark.slow
def test_it_installs_what_has_the_hash_that_is_listed(folder: Path) -> None:
    write_scripts(folder, HERE)
    with zipfile.ZipFile(folder / "wheels" / "beans-1.0-py3-none-any.whl", "a") as wheel:
        wheel.writestr("other.py", "")
    assert install(folder).returncode != 0
    write_scripts(folder, HERE)
    done = install(folder)
    assert done.returncode == 0 and done.stdout.endswith("next: new/bin/mamegpt demo\n"), done.stderr
    said = subprocess.run([folder.parent / "new/bin/python", "-c", "import beans; print(beans.N)"], capture_output=True)
    assert said.stdout == b"5\n"


@posix
def test_another_python_is_refused_in_one_line(folder: Path) -> None:
    write_scripts(folder, "3.99")
    done = install(folder)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "is not Python 3.99;" in done.stderr
    assert not (folder.parent / "new").exists()


def test_the_script_for_windows_is_in_its_form(folder: Path) -> None:
    write_scripts(folder, "3.12")
    script = (folder / "install.bat").read_bytes()
    assert script.isascii() and script.count(b"\r\n") == script.count(b"\n") and b"py -3.12 " in script
    (line,) = hashed(folder / "wheels")
    assert (folder / "requirements.txt").read_text(encoding="utf-8") == f"{line}\n"
    assert line.startswith("beans==1.0 --hash=sha256:")


def test_the_wheels_of_each_platform_are_among_those_that_are_asked_for() -> None:
    for name, one in PLATFORMS.items():
        assert one.tag in tags(name) or name == "macos-arm64"
