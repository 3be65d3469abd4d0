"""Devices, with PyTorch's answers replaced: none of this machine's own is asked."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mamegpt.distributed import processes
from mamegpt.errors import ConfigError
from mamegpt.system import devices as module
from mamegpt.system import hardware as hardware_module
from mamegpt.system.devices import Device, choose_device, deterministic, devices, on_device
from mamegpt.system.hardware import arithmetic, has_bf16, has_fp16

WHEEL = ["sm_75", "sm_80", "sm_86", "sm_90a", "compute_120"]


def card(capability: tuple[int, int], name: str = "Card") -> SimpleNamespace:
    major, minor = capability
    return SimpleNamespace(name=name, total_memory=16 << 30, major=major, minor=minor)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that gives this machine other accelerators."""

    def use(
        cuda: list[SimpleNamespace], xpu: list[SimpleNamespace] | None = None, *, mps: bool = False, trial: str = ""
    ) -> None:
        modules = {
            kind: SimpleNamespace(
                is_available=lambda cards=cards: bool(cards),
                device_count=lambda cards=cards: len(cards),
                get_device_properties=lambda i, cards=cards: cards[i],
            )
            for kind, cards in (("cuda", cuda), ("xpu", xpu or []))
        }
        monkeypatch.setattr(torch, "get_device_module", lambda kind: modules[str(kind)])
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: WHEEL)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 8 << 30)
        monkeypatch.setattr(module, "_trial", lambda device: trial)

    return use


@pytest.mark.parametrize(
    ("capability", "works"),
    [
        ((7, 5), True),
        ((6, 1), False),
        ((7, 0), False),
        ((8, 9), True),
        ((9, 0), True),
        ((9, 1), False),
        ((12, 1), True),
    ],
)
def test_a_card_that_the_wheel_has_no_code_for_is_refused_with_the_reason(
    machine: Callable[..., None], capability: tuple[int, int], works: bool
) -> None:
    machine([card(capability, "GeForce")])
    chosen = choose_device()
    assert chosen.device == torch.device("cuda:0" if works else "cpu")
    if not works:
        (notice,) = chosen.notices
        assert "cuda:0: GeForce, 16.0 GiB, compute capability" in notice and "(built for sm_75, sm_80" in notice
    assert choose_device("cuda").device == torch.device("cuda:0")  # asked for, it is taken


def test_auto_takes_the_first_kind_that_computes(machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    machine([], [card((1, 0))], mps=True)
    assert [str(one.device) for one in devices()] == ["xpu:0", "mps"]
    assert choose_device() == module.Choice(torch.device("xpu:0"))
    machine([card((8, 0))], [card((1, 0))], trial="a small training step fails (no kernel image)")
    chosen = choose_device()
    assert chosen.device.type == "cpu" and len(chosen.notices) == 2
    assert chosen.notices[0].endswith("is not used: a small training step fails (no kernel image)")
    machine([], mps=True)
    monkeypatch.setattr(torch, "__version__", "2.13.0")
    monkeypatch.setattr("platform.mac_ver", lambda: ("14.7.1", ("", "", ""), "arm64"))
    assert choose_device().device.type == "cpu" and "it needs macOS 15 or PyTorch 2.14" in choose_device().notices[0]
    monkeypatch.setattr("platform.mac_ver", lambda: ("26.1", ("", "", ""), "arm64"))
    assert choose_device() == module.Choice(torch.device("mps"))
    assert "works in one process only" in choose_device(n_local=2).notices[0]
    with processes.join("auto") as world:  # MPS has no number, and PyTorch asks for none
        assert world.device == torch.device("mps") and world.size == 1
    monkeypatch.setattr("platform.mac_ver", lambda: ("14.7.1", ("", "", ""), "arm64"))
    asked = choose_device("mps")
    assert asked.device == torch.device("mps") and "wrong gradients" in asked.notices[0]


def test_processes_have_a_card_each_and_idle_cards_are_named(machine: Callable[..., None]) -> None:
    machine([card((8, 0)), card((8, 0))])
    assert [str(choose_device(name, rank, 2).device) for name in ("auto", "cuda") for rank in (0, 1)] == [
        "cuda:0",
        "cuda:1",
        "cuda:0",
        "cuda:1",
    ]
    assert "cuda:0 alone is used, of 2 devices; use all with: torchrun" in choose_device().notices[0]
    assert choose_device("cuda:1") == module.Choice(torch.device("cuda:1"))
    with pytest.raises(
        ConfigError, match=r"started 3 processes on this machine, which has 2 devices .*; use nproc_per_node 2, or"
    ):
        choose_device("auto", 2, 3)
    with pytest.raises(ConfigError, match="started 3 processes"):
        choose_device("auto", 2)  # as where only LOCAL_RANK is set
    with pytest.raises(ConfigError, match="device cuda:1 is one device, for 2 processes; use device cuda"):
        choose_device("cuda:1", 0, 2)
    with pytest.raises(ConfigError, match="device cuda:2 was asked for, but there are only these: cuda:0, cuda:1"):
        choose_device("cuda:2")


def test_a_device_that_is_not_there_is_an_error(machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    machine([])
    assert choose_device() == choose_device("cpu") == module.Choice(torch.device("cpu"))
    with pytest.raises(ConfigError, match="device xpu was asked for, but PyTorch sees none here; use device cpu"):
        choose_device("xpu")
    with pytest.raises(ConfigError, match=r"device must be one of auto, cpu, cuda, cuda:N.*\(got gpu\)"):
        choose_device("gpu")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(
        ConfigError, match="asked for, but there is an NVIDIA driver, but this PyTorch is built without"
    ):
        choose_device("cuda")
    assert "built without CUDA: install one" in choose_device().notices[0]


def test_a_small_training_step_tells_whether_a_device_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module._trial.__wrapped__(torch.device("cpu")) == ""

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available\nmore")

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", fail)
    found = module._trial.__wrapped__(torch.device("cpu"))
    assert found == "a small training step fails (CUDA error: no kernel image is available)"


def test_what_a_device_multiplies_in_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    old = SimpleNamespace(is_bf16_supported=lambda including_emulation: False)
    monkeypatch.setattr(torch, "get_device_module", lambda device: old)
    t4, mps, cpu = map(torch.device, ("cuda:0", "mps", "cpu"))
    assert (has_bf16(t4), has_fp16(t4)) == (False, True)
    assert (has_bf16(mps), has_fp16(mps), has_fp16(cpu)) == (False, True, False)


def test_a_device_is_described_in_one_line() -> None:
    line = Device(torch.device("cuda:0"), "Tesla T4", 15 << 30, "7.5").line
    assert line == "cuda:0: Tesla T4, 15.0 GiB, compute capability 7.5"
    assert Device(torch.device("mps"), "Apple MPS", 8 << 30).line == "mps: Apple MPS, 8.0 GiB"


def test_doctor_names_the_driver_and_the_version_of_cuda(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine([card((7, 5), "Tesla T4")])
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    answer = SimpleNamespace(stdout="580.65.06\n580.65.06\n")
    monkeypatch.setattr(hardware_module.subprocess, "run", lambda *_, **__: answer)
    assert hardware_module._gpu() == ("cuda:0: Tesla T4, 16.0 GiB, compute capability 7.5; CUDA 13.0, driver 580.65.06")

    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(hardware_module.subprocess, "run", missing)
    assert hardware_module._gpu().endswith("driver ?")


def test_another_card_is_another_arithmetic(machine: Callable[..., None]) -> None:
    machine([card((7, 5), "Tesla T4"), card((8, 0), "A100")])
    assert [arithmetic(torch.device("cuda", i), 1)["accelerator"] for i in (0, 1)] == ["Tesla T4", "A100"]
    assert "accelerator" not in arithmetic(torch.device("cpu"), 1)


def test_operations_are_reproducible_while_a_gpu_trains() -> None:
    with deterministic(torch.device("cpu")):
        assert torch.get_deterministic_debug_mode() == 0
    with deterministic(torch.device("cuda:0")):
        assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_deterministic_debug_mode() == 0


def test_an_array_goes_to_a_gpu_from_pinned_memory_and_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.arange(6)
    assert on_device(array, torch.device("cpu")).data_ptr() == array.ctypes.data
    asked: list[object] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: asked.append("pinned") or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *given, **named: asked.append((*given, named)) or self)
    on_device(array, torch.device("cuda:0"))
    assert asked == ["pinned", (torch.device("cuda:0"), {"non_blocking": True})]
