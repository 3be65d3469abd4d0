"""The seed's recipe, deliberately plain: what everyone starts from, and what the others are measured against.

A GPT-2 as "Build a Large Language Model (From Scratch)" has it (learned positions, pre-LayerNorm, fused query, key
and value projection without bias, GELU (tanh), untied head) with dropout 0.1 on attention, shortcuts and embedding;
eager float32 PyTorch, all logits at once, `F.cross_entropy`, AdamW at a constant 3e-4.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers.task import Task

DROP_RATE = 0.1
LR = 3e-4


class Block(nn.Module):
    def __init__(self, task: Task) -> None:
        super().__init__()
        width = task.emb_dim
        self.n_heads = task.n_heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.ff = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.drop = nn.Dropout(DROP_RATE)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        B, T, C = x.shape
        qkv = self.qkv(self.norm1(x)).view(B, T, 3, self.n_heads, C // self.n_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # 3 x (B, H, T, D)
        drop_rate = DROP_RATE if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=drop_rate, is_causal=True)
        x = x + self.drop(self.proj(y.transpose(1, 2).reshape(B, T, C)))
        return x + self.drop(self.ff(self.norm2(x)))  # type: ignore[no-any-return]


class GPT(nn.Module):
    def __init__(self, task: Task) -> None:
        super().__init__()
        self.tok_emb = nn.Embedding(task.vocab_size, task.emb_dim)
        self.pos_emb = nn.Embedding(task.context_length, task.emb_dim)
        self.drop = nn.Dropout(DROP_RATE)
        self.blocks = nn.Sequential(*(Block(task) for _ in range(task.n_layers)))
        self.final_norm = nn.LayerNorm(task.emb_dim)
        self.out_head = nn.Linear(task.emb_dim, task.vocab_size, bias=False)

    def hidden(self, ids: Tensor) -> Tensor:
        """(B, T) -> (B, T, C); by this name, so that `mamegpt.training.validation` can judge the model."""
        x = self.drop(self.tok_emb(ids) + self.pos_emb(torch.arange(ids.shape[1])))
        return self.final_norm(self.blocks(x))  # type: ignore[no-any-return]

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) -> logits (B, T, V)."""
        return self.out_head(self.hidden(ids))  # type: ignore[no-any-return]


def train(task: Task) -> Iterator[tuple[GPT, float]]:
    """Train for ever; yields the model and the loss, nats per token, after each step."""
    torch.manual_seed(task.seed)
    model = GPT(task).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    for x, y in task.batches():
        optimizer.zero_grad()
        logits = model(torch.from_numpy(x))
        loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(y).flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        yield model, loss.item()
