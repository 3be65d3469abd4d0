"""Which settings Qwen3 has."""

__all__ = ["UNSUPPORTED_FIELDS"]

UNSUPPORTED_FIELDS = ("qkv_bias",)
"""Fields of `ModelConfig` that it does not have, and that must therefore keep their defaults."""
