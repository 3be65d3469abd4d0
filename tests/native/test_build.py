"""The library is compiled once, whole or not at all, and without a compiler PyTorch computes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from mamegpt.config import Precision, TrainConfig
from mamegpt.errors import ConfigError
from mamegpt.native import build as module
from mamegpt.native.build import best_instruction_set, build, library_path, write_library
from mamegpt.system.hardware import cpp_compiler
from mamegpt.training import engine
from mamegpt.training.engine import choose_engine, engine_name, load_engine, will_compute
from mamegpt.training.events import BuildingEngine, Event, NoEngine

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(cpp_compiler() is None, reason="no C++ compiler")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, wherever the system has it."""
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def avx2(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor on which native is faster."""
    monkeypatch.setattr(engine, "_is_faster", lambda device: device.type == "cpu")


def fake_compiler(folder: Path, script: str) -> str:
    path = folder / "c++"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@needs_compiler
def test_it_is_built_once_for_its_sources(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMON_FLAGS", [flag.replace("-O3", "-O0") for flag in module.COMMON_FLAGS])
    used: list[str] = []
    path = build("portable", used.append)
    assert used == (cpp_compiler() or [])[:1] and {*cache.iterdir()} == {path, path.with_suffix(".sha256")}
    assert build("portable", used.append) == path == library_path("portable") and len(used) == 1
    whole = path.read_bytes()
    for damaged in (whole[:3000], b"", whole + b"x"):  # a truncated one would end the process with a signal
        path.write_bytes(damaged)
        assert build("portable", used.append) == path and path.stat().st_size > 3000
    assert len(used) == 4
    assert library_path("avx2") != path


@needs_compiler
def test_what_a_wheel_brings_is_used_and_nothing_is_built(
    tmp_path: Path, avx2: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMMON_FLAGS", [flag.replace("-O3", "-O0") for flag in module.COMMON_FLAGS])
    monkeypatch.setattr(module, "BROUGHT_FOLDER", tmp_path / "brought")
    monkeypatch.setattr(engine, "best_instruction_set", lambda: "portable")
    brought = tmp_path / "brought" / module.library_name("portable")
    write_library(brought, [*(cpp_compiler() or []), *module.COMMON_FLAGS])
    monkeypatch.setattr(module, "cache_folder", lambda: pytest.fail("no folder is needed"))
    monkeypatch.setattr(module, "cpp_compiler", lambda: pytest.fail("no compiler is needed"))
    assert build("portable") == library_path("portable") == brought
    assert will_compute() == "native (portable)"
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path / "cache")
    brought.write_bytes(b"damaged")
    assert library_path("portable").parent == tmp_path / "cache"
    other = module.library_name("portable", "linux", "aarch64")
    assert other != module.library_name("portable", "darwin", "arm64")


def test_the_compiler_is_that_of_cxx_with_its_options_or_it_is_said(
    tmp_path: Path, avx2: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fake_compiler(tmp_path, "exit 0")
    monkeypatch.setenv("CXX", f"{path} -m64")
    assert cpp_compiler() == [path, "-m64"]
    spaced = tmp_path / "a folder"
    spaced.mkdir()
    monkeypatch.setenv("CXX", fake_compiler(spaced, "exit 0"))
    assert cpp_compiler() == [str(spaced / "c++")]
    monkeypatch.setenv("CXX", 'c++ "')
    with pytest.raises(ConfigError, match="CXX names c"):
        cpp_compiler()
    monkeypatch.setenv("CXX", "no-such-c++ -m64")
    with pytest.raises(ConfigError, match=r"CXX names no-such-c\+\+, which is no program here"):
        cpp_compiler()
    assert "CXX names no-such-c++" in will_compute()
    events: list[Event] = []
    assert choose_engine(TrainConfig(), CPU, events.append) == "torch" and "no-such-c++" in str(events[0])


def test_other_sources_or_flags_are_another_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = library_path("portable")
    source = tmp_path / "other.cpp"
    source.write_text("int x;", encoding="utf-8")
    monkeypatch.setattr(module, "source_files", lambda: [source])
    assert library_path("portable") != before
    monkeypatch.setattr(module, "COMMON_FLAGS", ["-O0"])
    assert library_path("portable") not in (before, build)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'x.cpp:1: error: no such thing' >&2; exit 1", "x.cpp:1: error: no such thing"),
        ("exit 3", "exit code 3"),
        ("exit 0", "No such file"),  # it wrote nothing
    ],
)
def test_a_compiler_that_fails_leaves_nothing(
    script: str, reason: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "cpp_compiler", lambda: [fake_compiler(tmp_path, script)])
    with pytest.raises(ConfigError, match=f"c.. failed: .*{reason}"):
        build("portable")
    assert not cache.exists()


def test_a_cache_that_cannot_be_had_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, avx2: None) -> None:
    script = 'while [ "$1" != -o ]; do shift; done; echo nonsense > "$2"'
    monkeypatch.setattr(module, "cpp_compiler", lambda: [fake_compiler(tmp_path, script)])
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setattr(module, "cache_folder", lambda: tmp_path / "file" / "cache")
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path / "file"))):
        build("portable")
    assert load_engine("native", CPU, must=False) is None


def test_without_a_home_pytorch_computes(monkeypatch: pytest.MonkeyPatch, avx2: None) -> None:
    """As in a container, for a user whom the system does not know."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.undo()
    monkeypatch.setattr(engine, "_is_faster", lambda device: device.type == "cpu")
    monkeypatch.setattr(Path, "home", no_home)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    events: list[Event] = []
    assert choose_engine(TrainConfig(), CPU, events.append) == "torch"
    assert [type(event) for event in events] == [NoEngine] and "set XDG_CACHE_HOME" in str(events[0])
    assert "set XDG_CACHE_HOME" in will_compute()


def test_what_is_no_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, avx2: None) -> None:
    script = 'while [ "$1" != -o ]; do shift; done; echo nonsense > "$2"'
    monkeypatch.setattr(module, "cpp_compiler", lambda: [fake_compiler(tmp_path, script)])
    events: list[Event] = []
    assert choose_engine(TrainConfig(), CPU, events.append) == "torch"
    assert [type(event) for event in events] == [BuildingEngine, NoEngine]
    assert "cannot be loaded" in str(events[1])


def test_without_a_compiler_pytorch_computes(monkeypatch: pytest.MonkeyPatch, avx2: None) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    events: list[Event] = []
    assert choose_engine(TrainConfig(), CPU, events.append) == "torch"
    assert events == [NoEngine("there is no C++ compiler; install g++ or clang++")]
    assert "needs a C++ compiler" in will_compute()
    with pytest.raises(ConfigError, match=r"engine native cannot be used \(there is no C\+\+ compiler"):
        load_engine("native", CPU, events.append, must=True)
    assert load_engine("native", CPU, events.append, must=False) is None and len(events) == 2
    assert load_engine("torch", CPU, events.append, must=True) is None and engine_name(None) == "torch"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "native"),
        ({"precision": "fp32"}, "native"),
        ({"precision": "bf16"}, "torch"),
        ({"precision": "fp16"}, "torch"),
        ({"engine": "torch"}, "torch"),
        ({"emb_dim": 24}, "torch"),
        ({"sharding": "full"}, "torch"),
        ({"engine": "native"}, "native"),
    ],
)
def test_auto_is_native_where_it_is_faster_and_fits(
    changes: dict[str, str], expected: str, avx2: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "load", lambda on_build: "a library")
    monkeypatch.setattr(engine, "best_instruction_set", lambda: "avx2")
    config = TrainConfig(**changes)  # type: ignore[arg-type]
    assert choose_engine(config, CPU, lambda _: None) == expected
    assert choose_engine(TrainConfig(engine="auto"), torch.device("meta"), lambda _: None) == "torch"


@pytest.mark.parametrize(
    ("capability", "bf16", "expected"),
    [("AVX2", False, True), ("AVX512", False, False), ("DEFAULT", False, False), ("AVX2", True, False)],
)
def test_native_is_faster_only_where_it_was_measured(
    capability: str, bf16: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    monkeypatch.setattr(engine, "has_bf16", lambda device: bf16)
    assert engine._is_faster(CPU) is expected
    assert ("PyTorch" in will_compute()) is not (expected and cpp_compiler() is not None)


@pytest.mark.parametrize(
    ("machine", "capability", "found", "limit", "expected"),
    [
        ("x86_64", "AVX512", [], "", "avx512"),
        ("x86_64", "AVX512", ["avx512_bf16"], "", "avx512bf16"),
        ("x86_64", "AVX512", ["avx512_bf16", "amx_bf16"], "", "amx"),
        ("x86_64", "AVX512", ["amx_bf16"], "", "avx512"),  # a virtual machine may hide AVX512-BF16
        ("x86_64", "AVX512", ["avx512_bf16", "amx_bf16"], "AVX512_CORE_AMX", "amx"),
        ("x86_64", "AVX512", ["avx512_bf16", "amx_bf16"], "avx512_core_bf16", "avx512bf16"),
        ("x86_64", "AVX512", ["avx512_bf16", "amx_bf16"], "AVX512_CORE_VNNI", "avx512"),
        ("x86_64", "AVX2", ["avx512_bf16", "amx_bf16"], "", "avx2"),
        ("AMD64", "AVX2", [], "", "avx2"),
        ("x86_64", "DEFAULT", [], "", "portable"),
        ("arm64", "DEFAULT", [], "", "neon"),
    ],
)
def test_the_best_instructions_are_those_of_the_processor(
    machine: str, capability: str, found: list[str], limit: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    monkeypatch.setattr(module, "cpu_capabilities", lambda: dict.fromkeys(found, True))
    monkeypatch.setattr("torch.cpu._init_amx", lambda: True)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert best_instruction_set() == expected
    monkeypatch.setattr("torch.cpu._init_amx", lambda: False)  # the system does not allow tiles
    assert best_instruction_set() == ("avx512bf16" if expected == "amx" else expected)


def test_where_neither_engine_is_known_to_be_faster_what_is_there_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_is_faster", lambda device: False)
    monkeypatch.setattr(engine, "best_instruction_set", lambda: "avx512")
    for found, chosen, word in (
        (None, "torch", "native builds it"),
        (object(), "auto", "measured to be faster"),
    ):
        monkeypatch.setattr(engine, "load_if_built", lambda found=found: found)
        assert choose_engine(TrainConfig(), CPU, lambda _: None) == chosen
        assert word in str(will_compute())
        assert choose_engine(TrainConfig(precision="bf16"), CPU, lambda _: None) == "torch"


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
@pytest.mark.parametrize("can_be_built", [True, False])
def test_where_bfloat16_is_multiplied_it_is_built_and_measured(
    precision: Precision, can_be_built: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(on_build: object) -> str:
        if not can_be_built:
            raise ConfigError("there is no C++ compiler")
        return "a library"

    monkeypatch.setattr(engine, "_is_faster", lambda device: False)
    monkeypatch.setattr(engine, "best_instruction_set", lambda: "amx")
    monkeypatch.setattr(engine, "load", load)
    assert choose_engine(TrainConfig(precision=precision), CPU, lambda _: None) == ("auto" if can_be_built else "torch")
    monkeypatch.setattr(engine, "is_built", lambda library: False)
    monkeypatch.setattr(engine, "cpp_compiler", lambda: ["c++"] if can_be_built else None)
    word = "native (amx), whichever is measured" if can_be_built else "PyTorch (native needs a C++ compiler"
    assert word in str(will_compute())


def test_native_elsewhere_than_on_a_cpu_is_refused() -> None:
    with pytest.raises(ConfigError, match="computes on a CPU"):
        load_engine("native", torch.device("meta"), lambda _: None, must=True)
    with pytest.raises(ConfigError, match=r"computes in fp32 or bf16.*; engine native needs a multiple of 16"):
        TrainConfig(data="x", tokenizer="y", out="z", engine="native", precision="fp16", emb_dim=100).validate()


def test_in_bfloat16_native_is_not_for_every_width_and_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(data="x", tokenizer="y", out="z", engine="native", emb_dim=48, n_heads=1)
    config.validate()
    with pytest.raises(ConfigError, match="engine native needs a multiple of 32"):
        dataclasses.replace(config, precision="bf16").validate()
    monkeypatch.setattr(engine, "best_instruction_set", lambda: "amx")
    assert choose_engine(TrainConfig(emb_dim=48, precision="bf16"), CPU) == "torch"
    monkeypatch.setattr(engine, "best_instruction_set", lambda: "avx512")
    events: list[Event] = []
    assert load_engine("native", CPU, events.append, must=False, precision="bf16") is None
    assert "which this processor lacks" in str(events[0])
    with pytest.raises(ConfigError, match=r"native cannot be used \(it computes in bf16 with AMX"):
        load_engine("native", CPU, must=True, precision="bf16")
