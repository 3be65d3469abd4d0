"""The package: its facts agree everywhere, and an installed wheel has all it needs."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml  # type: ignore[import-untyped]
from little import ROOT

import mamegpt
from mamegpt import errors
from mamegpt.config import Logger

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]
DISTRIBUTIONS = {"yaml": "pyyaml"}
"""Those that are not called as the module that is imported from them."""
PINNED = re.compile(r"^([\w.-]+)(?:\[\w+\])?==([\w.]+)", re.MULTILINE)


def normalized(name: str) -> str:
    """The name of a distribution as PEP 503 compares it, without extras and versions."""
    return re.split(r"[>=<\[]", name)[0].lower().replace("_", "-")


def pins(text: str) -> dict[str, str]:
    return {normalized(found[1]): found[2] for found in PINNED.finditer(text)}


def pins_of(name: str) -> dict[str, str]:
    return pins((ROOT / name).read_text(encoding="utf-8"))


def imported() -> set[str]:
    """The distributions that the package imports from, at once or when needed."""
    modules = set()
    for path in (ROOT / "mamegpt").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
                modules.add(node.module.partition(".")[0])
    return {normalized(DISTRIBUTIONS.get(name, name)) for name in modules - sys.stdlib_module_names - {"mamegpt"}}


def printed(*command: object, cwd: Path = ROOT) -> str:
    """What a command prints that must succeed."""
    words = list(map(str, command))
    done = subprocess.run(words, cwd=cwd, capture_output=True, encoding="utf-8", timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_version_is_the_same_everywhere() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert PROJECT["version"] == mamegpt.__version__ == cited["version"]
    assert f"\n## {mamegpt.__version__} " in changes


def test_all_that_is_imported_is_declared_and_nothing_else_is_installed_to_run() -> None:
    needed = set(map(normalized, PROJECT["dependencies"]))
    extras = {normalized(name) for names in PROJECT["optional-dependencies"].values() for name in names}
    assert imported() - needed - extras == set()
    assert needed - imported() == set()


def test_of_each_dependency_it_is_said_what_needs_it() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = text.partition("\ndependencies = [\n")[2].partition("\n]")[0].splitlines()
    extras = text.partition("[project.optional-dependencies]\n")[2].partition("\n\n")[0].splitlines()
    assert len(listed) == len(PROJECT["dependencies"]) and len(extras) == len(PROJECT["optional-dependencies"])
    assert [line for line in listed + extras if not re.search(r"  # \w", line)] == []


def test_the_page_has_each_dependency_in_its_table() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("| package | MB |")[2].partition("\n\n")[0].splitlines()[2:]
    names = [normalized(name) for line in table for name in line.split("|")[1].replace(" ", "").split(",")]
    assert sorted(names) == sorted(map(normalized, PROJECT["dependencies"]))
    extras = re.findall(r"`([\w-]+)`", page.partition("Packages that few users need")[2].partition("\n")[0])
    assert {*PROJECT["optional-dependencies"]} - {*extras} == {*get_args(Logger)}


def test_nobody_is_told_to_install_what_is_not_published_and_the_extras_that_are_named_exist() -> None:
    named = set()
    for name in printed("git", "ls-files", "-z").strip("\0").split("\0"):
        path = ROOT / name
        if path.suffix in (".py", ".md", ".json", ".toml", ".txt", ".yml", ".ipynb", "") and "golden" not in path.parts:
            text = path.read_text(encoding="utf-8")
            if not errors.INDEX_NAME:
                assert not re.search(r"install (?:-\S+ )*\S?mamegpt\b|\bmamegpt" r"\[[a-z]", text), name
            named |= set(re.findall(r"\.\[(\w+)\]", text))
    assert {"wiki", "export", "cluster"} <= named <= PROJECT["optional-dependencies"].keys()


@pytest.mark.parametrize(
    ("extra", "place", "index_name", "said"),
    [
        ("export", ROOT, "", 'in the folder of mamegpt: pip install -e ".[export]"'),
        ("export", ROOT, "beans", 'in the folder of mamegpt: pip install -e ".[export]"'),
        ("export", Path("site-packages"), "beans", 'pip install "beans[export]"'),
        ("export", Path("site-packages"), "", 'pip install "gguf>=0.19" "xllamacpp>=2026.10"'),
        ("cluster", Path("site-packages"), "", 'pip install "datatrove>=0.10" "ray[train]>=2.50"'),
    ],
)
def test_a_clone_and_a_wheel_are_told_how_to_install_an_extra(
    extra: str, place: Path, index_name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "INDEX_NAME", index_name)
    monkeypatch.setattr(errors, "__file__", str(place / "mamegpt" / "errors.py"))
    assert errors.how_to_install(extra) == said


def test_what_is_asked_for_is_of_the_extra_that_is_named() -> None:
    extras = {name: set(map(normalized, asked)) for name, asked in PROJECT["optional-dependencies"].items()}
    calls = [
        [ast.literal_eval(argument) for argument in node.args[1:]]
        for path in (ROOT / "mamegpt").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "require_packages"
        and all(isinstance(argument, ast.Constant | ast.List) for argument in node.args[2:])
    ]
    calls += [[[name], name] for name in get_args(Logger)]
    assert len(calls) >= 5 and all(set(map(normalized, packages)) == extras[extra] for packages, extra in calls)


def test_what_the_package_needs_is_pinned_and_the_lock_has_the_same_pins() -> None:
    assert set(map(normalized, PROJECT["dependencies"])) == set(pins_of("requirements.txt"))
    development = pins("\n".join(PYPROJECT["dependency-groups"]["dev"]))
    assert len(development) == len(PYPROJECT["dependency-groups"]["dev"])
    direct, locked = pins_of("requirements.txt") | development, pins_of("requirements-lock.txt")
    assert {name: locked.get(name) for name in direct} == direct


def test_every_line_of_the_lock_has_hashes_and_names_no_place() -> None:
    text = (ROOT / "requirements-lock.txt").read_text(encoding="utf-8")
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    for entry in re.split(r"\n(?=\S)", text):
        assert entry.startswith("#") or "--hash=sha256:" in entry, entry[:60]


def test_the_files_of_the_forge_can_be_read() -> None:
    files = [*(ROOT / ".github").rglob("*.yml")]
    assert len(files) == 4
    for file in files:
        assert isinstance(yaml.safe_load(file.read_text(encoding="utf-8")), dict), file
    ci = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert f'python: ["{lowest}", ' in ci


def test_every_file_of_the_package_that_is_no_module_is_package_data() -> None:
    data = {
        path.relative_to(ROOT)
        for name, patterns in PYPROJECT["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for path in (ROOT / name.replace(".", "/")).glob(pattern)
    }
    names = printed("git", "ls-files", "--cached", "--others", "--exclude-standard", "mamegpt").splitlines()
    assert {Path(name) for name in names if not name.endswith((".py", ".po"))} == data  # .mo is made of .po


@pytest.mark.skipif(shutil.which("make") is None or sys.platform == "win32", reason="no make")
@pytest.mark.parametrize(
    ("system", "driver", "asked"),
    [("Linux", "exit 9", True), ("Linux", "echo GPU 0: H200", False), ("Darwin", "exit 9", False)],
)
def test_the_cpu_build_of_torch_is_asked_for_where_it_is_smaller(
    system: str, driver: str, asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, script in (("uname", f"echo {system}"), ("nvidia-smi", driver)):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    commands = printed("make", "--dry-run", "--always-make", "demo").splitlines()
    (torch,) = [line for line in commands if line.endswith(" torch")]
    index = PYPROJECT["tool"]["uv"]["index"][0]["url"]
    assert (f"--extra-index-url {index} " in torch) is asked
    assert not any("--group" in line or index in line for line in commands if line != torch)


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize(("told", "ahead"), [("1", True), ("", False)])
def test_all_is_compiled_ahead_only_where_python_may_not_keep_what_it_compiles(
    told: str, ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", told)
    commands = printed("make", "--dry-run", "--always-make", "demo").splitlines()
    assert ["--no-compile" in line for line in commands if "pip.log" in line and " -m pip " in line] == [not ahead] * 2


@pytest.mark.slow
def test_an_installed_wheel_runs_the_demo_in_another_folder(tmp_path: Path) -> None:
    copy = tmp_path / "source"
    for name in printed("git", "ls-files", "-z").strip("\0").split("\0"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    printed(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, copy)
    (wheel,) = tmp_path.glob("mamegpt-*.whl")
    inside = zipfile.ZipFile(wheel).namelist()
    ours = {path.relative_to(copy).as_posix() for path in (copy / "mamegpt").rglob("*") if path.is_file()}
    assert {name for name in ours if not name.endswith(".po")} <= set(inside)  # the compiled catalogue is enough
    assert {Path(name).name for name in inside if "licenses/" in name} == {"LICENSE.md", "NOTICE"}

    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    (site,) = (tmp_path / "venv").rglob("site-packages")
    libraries = [path for path in sys.path if Path(path).name == "site-packages"]
    (site / "libraries.pth").write_text("\n".join(libraries), encoding="utf-8")  # what mamegpt needs, from here
    printed(python, "-m", "pip", "install", "--no-deps", "--force-reinstall", wheel)
    command = python.with_name("mamegpt")
    version = f"mamegpt {mamegpt.__version__}\n"
    assert (
        printed(command, "--version", cwd=tmp_path) == printed(python, "-m", "mamegpt", "-V", cwd=tmp_path) == version
    )
    where = printed(python, "-c", "import mamegpt; print(mamegpt.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(site)
    printed(command, "demo", "--seconds", "3", cwd=tmp_path)
    assert (tmp_path / "demo/hf/model.safetensors").is_file()
    printed(command, "report", "demo/run", cwd=tmp_path)
    stories = (tmp_path / "demo/stories.txt").read_text(encoding="utf-8")
    (tmp_path / "some.txt").write_text(stories[:5000], encoding="utf-8")
    printed(command, "clean", "--data", "some.txt", "--out", "c.txt", "--report", "c.html", cwd=tmp_path)
    for name in ("report.html", "c.html"):
        page = (tmp_path / name).read_text(encoding="utf-8")
        assert "<svg " in page and page.endswith("</html>\n"), name
