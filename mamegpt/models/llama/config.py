"""Which settings Llama has."""

from typing import Any

__all__ = ["UNSUPPORTED_FIELDS"]

UNSUPPORTED_FIELDS: dict[str, Any] = {"qkv_bias": False}
"""Fields of `ModelConfig` that it does not have, with the values that they must keep: the defaults of `TrainConfig`."""
