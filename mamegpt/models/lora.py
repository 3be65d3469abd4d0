"""LoRA: low-rank adapters beside the linear layers of a model, whose own weights stay as they are.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", equation 3: h = W x + B A x. Its factor alpha / r
is 1 here, for with Adam another one is another learning rate (section 4.1).
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamegpt.models.base import LanguageModel, blocks, token_embedding

__all__ = ["ADAPTERS", "LoRALinear", "add_adapters", "merged"]

ADAPTERS = ("lora_A", "lora_B")
"""The names of the two matrices of an adapter, beside the ``weight`` of its layer."""


class LoRALinear(nn.Linear):
    """A linear layer with frozen weights and an adapter: (..., n_in) -> (..., n_out)."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        """Take the weights of a layer; the adapter begins as zero, A with random numbers as a linear layer's own."""
        super().__init__(layer.in_features, layer.out_features, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.lora_A = nn.Parameter(layer.weight.new_empty(rank, layer.in_features))
        self.lora_B = nn.Parameter(layer.weight.new_zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Return W x + B A x."""
        return super().forward(x) + F.linear(F.linear(x, self.lora_A), self.lora_B)


def add_adapters(
    model: LanguageModel, rank: int, *, learned_rows: Collection[int] = (), learns_head: bool = False
) -> None:
    """Give each linear layer inside the blocks an adapter, and freeze all other weights of a model.

    Of the token embedding and the output head the ``learned_rows`` are learned, too: those of tokens that the model
    never read. So is the whole head, if it ``learns_head``.
    """
    model.requires_grad_(False)
    for parent in list(blocks(model).modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear:
                setattr(parent, name, LoRALinear(child, rank))
    if learns_head:
        model.out_head.weight.requires_grad_(True)
    if learned_rows:
        rows = torch.tensor(sorted(learned_rows))
        for table in {token_embedding(model).weight, model.out_head.weight}:
            is_learned = torch.zeros(len(table), 1, dtype=table.dtype, device=table.device)
            is_learned[rows] = 1.0
            table.requires_grad_(True).register_hook(is_learned.mul)  # type: ignore[no-untyped-call]


def merged(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict without adapters: each is added to the weight of its layer, W + B A."""
    found = {name: tensor for name, tensor in weights.items() if not name.endswith(ADAPTERS)}
    for name in weights:
        layer, _, own = name.rpartition(".")
        if own == "lora_A":
            product = weights[f"{layer}.lora_B"] @ weights[name]
            found[f"{layer}.weight"] = weights[f"{layer}.weight"] + product
    return found
