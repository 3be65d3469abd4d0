"""The settings that the book's GPT does not have."""

from typing import Any

__all__ = ["UNSUPPORTED_FIELDS"]

UNSUPPORTED_FIELDS: dict[str, Any] = {
    "ffn_dim": 0,
    "n_kv_heads": 0,
    "head_dim": 0,
    "rope_theta": 10000.0,
    "norm_eps": 1e-6,
    "tie_embeddings": False,
}
"""Fields of `ModelConfig` that do not apply, with the values that they must keep: the defaults of `TrainConfig`."""
