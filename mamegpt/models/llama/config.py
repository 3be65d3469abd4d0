"""The settings that Llama does not have."""

from typing import Any

__all__ = ["UNSUPPORTED_FIELDS"]

UNSUPPORTED_FIELDS: dict[str, Any] = {"qkv_bias": False}
"""Fields of `ModelConfig` that do not apply, with the values that they must keep: the defaults of `TrainConfig`."""
