"""The wheels hold the engine for their platform, which needs nothing that this platform does not have."""

from __future__ import annotations

import importlib.util
import platform
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from little import ROOT

from mamegpt.native.build import InstructionSet, library_name
from release.wheels import PLATFORMS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),  # Zig compiles the C++ library first, for each platform
    pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="no compiler for other platforms"),
]
MOST_MB = 2.0


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all wheels."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "release.wheels", "--out", str(folder)], cwd=ROOT, check=True)
    return folder


def library_of(wheel: Path, name: str, instructions: InstructionSet, folder: Path) -> Path:
    """The library of the platform ``name`` for a set of instructions, taken out of a wheel."""
    one = PLATFORMS[name]
    with zipfile.ZipFile(wheel) as archive:
        file = f"mamegpt/native/brought/{library_name(instructions, one.system, one.machine)}"
        assert {file, str(Path(file).with_suffix(".sha256"))} <= {*archive.namelist()}
        return Path(archive.extract(file, folder))


def wheel_of(dist: Path, name: str) -> Path:
    (wheel,) = dist.glob(f"mamegpt-*-py3-none-{PLATFORMS[name].tag}.whl")
    return wheel


def test_there_is_one_for_each_platform_and_one_for_all_others(dist: Path) -> None:
    (pure,) = dist.glob("*-py3-none-any.whl")
    with zipfile.ZipFile(pure) as archive:
        pure_files = {*archive.namelist()}
    assert not any("brought" in file for file in pure_files)
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mamegpt").rglob("*.py")}
    assert {file for file in pure_files if file.endswith(".py")} == modules
    assert len([*dist.iterdir()]) == len(PLATFORMS) + 1
    for name, one in PLATFORMS.items():
        wheel = wheel_of(dist, name)
        with zipfile.ZipFile(wheel) as archive:
            more = {*archive.namelist()} - pure_files
            facts = next(file for file in archive.namelist() if file.endswith(".dist-info/WHEEL"))
            text = archive.read(facts).decode()
        assert len(more) == 2 * len(one.instructions) and all(
            file.startswith("mamegpt/native/brought/native-") for file in more
        )
        assert f"Tag: py3-none-{one.tag}\n" in text and "Root-Is-Purelib: false" in text
        assert wheel.stat().st_size - pure.stat().st_size < MOST_MB * 1e6


@pytest.mark.parametrize(
    ("name", "instructions"), [(name, one) for name, platform in PLATFORMS.items() for one in platform.instructions]
)
def test_a_library_has_our_functions_and_needs_only_the_system(
    name: str, instructions: InstructionSet, dist: Path, tmp_path: Path
) -> None:
    lief = pytest.importorskip("lief")
    library = lief.parse(str(library_of(wheel_of(dist, name), name, instructions, tmp_path)))
    entries = library.get_export().entries if name.startswith("windows") else library.exported_symbols
    exported = {entry.name.removeprefix("_") for entry in entries}
    assert {
        "mame_head",
        "mame_head_memory",
        "mame_attention",
        "mame_attention_backward",
        "mame_use_threads",
    } <= exported
    if name.startswith("linux"):
        assert {*library.libraries} <= {
            "libc.so.6",
            "libm.so.6",
            "libpthread.so.0",
            "libdl.so.2",
            "ld-linux-aarch64.so.1",
            "ld-linux-x86-64.so.2",
        }
        versions = [v.name for need in library.symbols_version_requirement for v in need.get_auxiliary_symbols()]
        glibc = [tuple(map(int, v.removeprefix("GLIBC_").split("."))) for v in versions]
        assert glibc and max(glibc) <= (2, 28)
    elif name.startswith("macos"):
        own, *needed = [one.name for one in library.libraries]
        assert own.startswith("@rpath/native-neon-") and needed == ["/usr/lib/libSystem.B.dylib"]
        assert library.build_version.minos[:2] == [13, 0]
    else:
        system = ("kernel32.dll", "ntdll.dll", "api-ms-win-", "ucrtbase.dll", "msvcrt.dll")
        assert all(needed.name.lower().startswith(system) for needed in library.imports)


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="the wheel is for Linux on x86_64"
)
def test_an_installed_wheel_has_its_engine_without_a_compiler(dist: Path, tmp_path: Path) -> None:
    """Installed beside this environment's packages, without a compiler and without a cache folder."""
    builder = venv.EnvBuilder(system_site_packages=False, with_pip=False)
    builder.create(tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    (site,) = (tmp_path / "env" / "lib").glob("python3*/site-packages")
    (packages,) = {str(Path(path)) for path in sys.path if path.endswith("site-packages")}
    with zipfile.ZipFile(wheel_of(dist, "linux-x86_64")) as archive:
        archive.extractall(site)
    (site / "others.pth").write_text(packages + "\n", encoding="utf-8")
    code = (
        "import torch, mamegpt; from mamegpt.native.library import load; native = load('avx2', print);"
        "q = torch.ones(1, 1, 5, 16); print(mamegpt.__file__, native.attention(q, q, q).sum().item())"
    )
    env = {"PATH": str(tmp_path), "HOME": str(tmp_path / "no"), "XDG_CACHE_HOME": "/dev/null/no"}
    done = subprocess.run(
        [python, "-c", code], cwd=tmp_path, env=env, capture_output=True, encoding="utf-8", check=False
    )
    assert done.stdout.split() == [str(site / "mamegpt" / "__init__.py"), "80.0"], done.stderr
