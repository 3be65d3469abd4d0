"""The functions that the root scripts run."""

import importlib.util
from collections.abc import Callable
from typing import Any

from little import ROOT

__all__ = ["entry"]


def entry(script: str) -> Callable[..., Any]:
    """The function a script runs."""
    spec = importlib.util.spec_from_file_location(script.removesuffix(".py"), ROOT / script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[..., Any] = module.main
    return function
