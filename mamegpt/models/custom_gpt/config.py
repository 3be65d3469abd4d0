"""Which settings the book's GPT has."""

__all__ = ["UNSUPPORTED_FIELDS"]

UNSUPPORTED_FIELDS = ("ffn_dim", "n_kv_heads", "head_dim", "rope_theta", "norm_eps", "tie_embeddings")
"""Fields of `ModelConfig` that it does not have, and that must therefore keep their defaults."""
