"""Names of devices, as in ``--device``; apart from `mamegpt.system.devices`, as that needs PyTorch."""

from __future__ import annotations

import re

__all__ = ["DEVICE_NAMES", "is_device_name"]

DEVICE_NAMES = ("auto", "cpu", "cuda", "cuda:N", "xpu", "xpu:N", "mps")
"""All names; N stands for the number of a device."""


def is_device_name(name: str) -> bool:
    """Return whether ``name`` is one of `DEVICE_NAMES`."""
    return re.sub(r":\d+$", ":N", name, flags=re.ASCII) in DEVICE_NAMES
