"""Keys and values of the tokens a model has read, so that a new token costs one position."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

__all__ = ["KVCache"]


class KVCache:
    """Keys and values of up to ``capacity`` tokens, allocated once; the methods are those of transformers' caches."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._lengths: dict[int, int] = {}

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Append (B, H, T, D) keys and values to a layer and return all it holds, (B, H, S, D), without a copy."""
        if layer_idx not in self._layers:
            B, H, _, D = key_states.shape
            self._layers[layer_idx] = (
                key_states.new_empty(B, H, self.capacity, D),
                value_states.new_empty(B, H, self.capacity, D),
            )
        past = self._lengths.get(layer_idx, 0)
        S = past + key_states.shape[2]
        keys, values = self._layers[layer_idx]
        keys[:, :, past:S] = key_states
        values[:, :, past:S] = value_states
        self._lengths[layer_idx] = S
        return keys[:, :, :S], values[:, :, :S]

    def get_seq_length(self) -> int:
        """Return how many tokens are held."""
        return self._lengths.get(0, 0)

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all sequences but these, which become 0, 1, ... of a smaller batch."""
        chosen = list(rows)
        self._layers = {layer: (keys[chosen], values[chosen]) for layer, (keys, values) in self._layers.items()}
