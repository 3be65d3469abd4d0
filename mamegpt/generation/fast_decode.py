"""The next token of one sequence on a CPU: our models again, written for a single position.

A token of a small model costs little arithmetic. What counts is how many times PyTorch is called, and the one pass
over the weights. So a step works on plain vectors, joins matrices that read the same vector, keeps query, key and
value of a position in one row, and runs on one thread: to wake a second one takes longer than it can help.

The model's own ``hidden`` reads the prompt; `OneToken.hidden` goes on from there, and `Head` makes logits of states.
`generation` does without for every model that `has_step` does not know. The tests hold both equal.

Letters in shape comments are those of the models: C embedding width, H heads, K heads of keys and values, D width of
a head, V vocabulary; N = H + 2 K.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mamegpt.generation.settings import check_finite

__all__ = ["FEW", "LARGEST", "STEPS", "Head", "OneToken", "has_step", "one_thread"]

LARGEST = 1 << 25
"""Parameters above which arithmetic outweighs calls, and copies of the weights, which a step makes, would be large."""
FEW = 1 << 29
"""Tokens times parameters up to which a prompt is read by one thread."""

Step = Callable[[int, int], Tensor]
"""Final hidden state (C,) of a token, given its id and its position."""


class Rows:
    """Query, key and value of each position: rows (N D,) of a layer, as one matrix product writes them."""

    def __init__(self, n_layers: int, capacity: int, heads: tuple[int, int, int], head_dim: int) -> None:
        rows = torch.empty(n_layers, capacity, sum(heads), head_dim)
        self._rows = rows.flatten(2)
        # (layers, capacity, N, D) -> (layers, 1, N, capacity, D) -> (layers, 1, H or K, capacity, D) each
        self._queries, self.keys, self.values = rows.transpose(1, 2)[:, None].split_with_sizes(heads, dim=2)

    def at(self, position: int) -> Iterator[tuple[Tensor, ...]]:
        """By layer: the row of a position, its query, and keys and values up to it; one call for all layers."""
        return zip(
            self._rows[:, position].unbind(),
            self._queries.narrow(3, position, 1).unbind(),
            self.keys.narrow(3, 0, position + 1).unbind(),
            self.values.narrow(3, 0, position + 1).unbind(),
            strict=True,
        )


class OneToken:
    """A model that takes one sequence, first a prompt, then one token at a time."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        with one_thread():
            self._rows, self._step = STEPS[_name(model)](model)
        self._length = 0

    def prompt(self, ids: Sequence[int]) -> Tensor:
        """Begin with ids (T,): the final hidden state (C,) of the last, from the model, whose cache this is."""
        model: Any = self._model
        with one_thread() if len(ids) * _n_parameters(model) <= FEW else contextlib.nullcontext():
            state: Tensor = model.hidden(torch.tensor([ids]), self)[0, -1]
        return state

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """As the prompt's cache: take in keys and values (1, K, T, D) of a layer."""
        self._length = key_states.shape[2]
        self._rows.keys[layer_idx, :, :, : self._length] = key_states
        self._rows.values[layer_idx, :, :, : self._length] = value_states
        return key_states, value_states

    def get_seq_length(self) -> int:
        """How many tokens are held."""
        return self._length

    def hidden(self, token: int) -> Tensor:
        """Append a token: its final hidden state (C,)."""
        with one_thread():
            state = self._step(token, self._length)
        self._length += 1
        return state


SMALLEST = 1e-30
"""Of a state's largest number, so that 127 by it is a number of float32."""


class Head:
    """The output head (V, C), asked for one position."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight.detach()
        # torch 2.13 misreads matrices of one column, or with a stride of 0, in torch._int_mm.
        self._counts_fast = torch.cpu.get_capabilities().get("avx512_vnni", False) and weight.shape[1] > 1

    def logits(self, state: Tensor) -> Tensor:
        """Of a state (C,): (V,)."""
        with one_thread():
            return self._product(state)

    def most_likely(self, state: Tensor) -> int:
        """Return the id of the largest logit of a state (C,), the first of equals; `ModelError` if it is not finite.

        Where the processor is good at it, whole numbers of 8 bits say first which ids come into question: a quarter
        of the memory to read, and no risk. Let a and b be a row and the state in units of which the largest is 127,
        and A and B the same rounded. Then |a b - A B| = |(a - A) b + A (b - B)| <= (|b|_1 + |A|_1) / 2. So the row
        with the largest a b has an A B within |b|_1 + max |A|_1 of the largest; logits tell those few apart.
        """
        x = state.numpy()
        peak = float(np.abs(x).max())
        check_finite(peak)
        if not (self._counts_fast and peak > SMALLEST):
            return int(self.logits(state).numpy().argmax())
        scaled = x * (127 / peak)
        with one_thread():
            rounded, largest_row = self._rounded
            slack = int(1.001 * np.abs(scaled).sum()) + largest_row + 1  # float32 rounds a little as well
            whole = torch.from_numpy(np.rint(scaled).astype(np.int8))
            rough = torch._int_mm(whole[None], rounded)[0].numpy()  # (V,), exact sums
            ids = np.flatnonzero(rough >= rough.max() - slack)
            few = torch.from_numpy(self._weight.numpy()[ids])  # gathered faster than PyTorch does it
            return int(ids[torch.mv(few, state).numpy().argmax()])

    @cached_property
    def _product(self) -> Callable[[Tensor], Tensor]:
        by_columns = _by_columns(self._weight)
        return lambda state: torch.mv(by_columns, state)

    @cached_property
    def _rounded(self) -> tuple[Tensor, int]:
        """The weights as int8, (C, V), and the largest sum of an id's absolute values."""
        low, high = self._weight.aminmax()
        unit = torch.maximum(-low, high).clamp(min=torch.finfo(torch.float32).tiny) / 127
        parts = torch.split(self._weight, 1024)  # small enough for the processor's cache
        rounded = torch.cat([(part / unit).round_().to(torch.int8) for part in parts])
        return rounded.t(), int(rounded.abs().sum(1).max())


def has_step(model: nn.Module) -> bool:
    """Whether a model has a step: ours, small, in float32 on a CPU, and with nothing replaced or hooked in it."""
    name = _name(model)
    own = name.rpartition(".")[0]
    return (
        name in STEPS
        and _n_parameters(model) <= LARGEST
        and all(p.dtype == torch.float32 and p.device.type == "cpu" for p in model.parameters())
        and all(
            type(module).__module__.startswith((own, "torch.nn.modules."))
            and not module._forward_hooks
            and not module._forward_pre_hooks
            for module in model.modules()
        )
    )


def _n_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _name(model: nn.Module) -> str:
    return f"{type(model).__module__}.{type(model).__qualname__}"


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch computes on one thread within."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def _by_columns(matrix: Tensor) -> Tensor:
    """The same matrix, stored column after column: its product with a vector takes as little as half the time."""
    return matrix.detach().t().contiguous().t()


def _linear(linear: Any) -> Callable[..., Tensor]:
    """An `nn.Linear` of a vector; ``out=`` says where to put it."""
    matrix = _by_columns(linear.weight)
    bias = matrix.new_zeros(len(matrix)) if linear.bias is None else linear.bias.detach()
    return lambda x, out=None: torch.addmv(bias, matrix, x, out=out)


def _layer_norm(norm: Any) -> Callable[[Tensor], Tensor]:
    """An `nn.LayerNorm` of a vector."""
    shape, weight, bias, eps = norm.normalized_shape, norm.weight.detach(), norm.bias.detach(), norm.eps
    return lambda x: torch.layer_norm(x, shape, weight, bias, eps)


def _custom_gpt(model: Any) -> tuple[Rows, Step]:
    """The step of `mamegpt.models.custom_gpt.modeling_custom_gpt.GPTModel`."""
    blocks = model.trf_blocks
    H, C = blocks[0].att.n_heads, model.tok_emb.embedding_dim
    rows = Rows(len(blocks), model.context_length, (H, H, H), C // H)
    tok_emb, pos_emb, final_norm = model.tok_emb.weight, model.pos_emb.weight, _layer_norm(model.final_norm)
    layers = [
        (
            _layer_norm(block.norm1), _linear(block.att.qkv), _linear(block.att.proj),
            _layer_norm(block.norm2), _linear(block.ff.layers[0]), _linear(block.ff.layers[2]),
        )
        for block in blocks
    ]  # fmt: skip

    def step(token: int, position: int) -> Tensor:
        x = tok_emb[token] + pos_emb[position]
        for (norm1, qkv, proj, norm2, up, down), (row, q, k, v) in zip(layers, rows.at(position), strict=True):
            qkv(norm1(x), out=row)
            x = x + proj(F.scaled_dot_product_attention(q, k, v).view(-1))
            x = x + down(F.gelu(up(norm2(x)), approximate="tanh"))
        return final_norm(x)

    return rows, step


def _qwen3(model: Any) -> tuple[Rows, Step]:
    """The step of `mamegpt.models.qwen3.modeling_qwen3.Qwen3`.

    RMSNorm of n numbers is sqrt(n) weight x / sqrt(|x|^2 + n eps). Its sqrt(n) and weight are moved into what reads
    it, a matrix or the rotation; the divisor of a whole x is a number, applied within the matrix product.
    """
    body = model.model
    first, C, eps = body.layers[0].self_attn, body.embed_tokens.embedding_dim, body.norm.eps
    D = first.head_dim
    H, K = first.q_proj.out_features // D, first.k_proj.out_features // D
    rows = Rows(len(body.layers), model.context_length, (H, K, K), D)
    angles = body.rope.repeat(1, 1, 2)[:, :, None]  # (2, capacity, 1, D)
    embedding, floor = body.embed_tokens.weight, torch.tensor((D * eps) ** 0.5)
    final_norm: Tensor = C**0.5 * body.norm.weight
    layers = []
    rotations = []
    for block in body.layers:
        att, mlp = block.self_attn, block.mlp
        layers.append((
            _after_norm(block.input_layernorm, att.q_proj, att.k_proj, att.v_proj), _linear(att.o_proj),
            _after_norm(block.post_attention_layernorm, mlp.gate_proj, mlp.up_proj), _linear(mlp.down_proj),
        ))  # fmt: skip
        scale = D**0.5 * torch.cat((att.q_norm.weight.expand(H, D), att.k_norm.weight.expand(K, D)))  # (H + K, D)
        a, b = scale.chunk(2, dim=-1)
        rotations.append(angles * torch.stack((scale, torch.cat((-b, a), dim=-1)))[:, None])
    rotation = torch.stack(rotations, dim=1)  # (2, layers, capacity, H + K, D), for x and for its halves swapped

    def factor(x: Tensor) -> float:
        """1 / sqrt(|x|^2 + C eps)."""
        return float((x.dot(x).item() + C * eps) ** -0.5)

    def step(token: int, position: int) -> Tensor:
        x = embedding[token]
        cos, sin = (table.unbind() for table in rotation[:, :, position].unbind())
        for layer, (row, q, k, v) in enumerate(rows.at(position)):
            qkv, out, gate_up, down = layers[layer]
            qkv(x, factor(x), out=row)
            qk = row[: (H + K) * D].view(H + K, D)
            normed = qk / torch.hypot(torch.linalg.vector_norm(qk, dim=-1, keepdim=True), floor)
            torch.addcmul(normed * cos[layer], normed.roll(D // 2, -1), sin[layer], out=qk)
            x = x + out(F.scaled_dot_product_attention(q, k, v, enable_gqa=H != K).view(-1))
            gate, up = gate_up(x, factor(x)).chunk(2)
            x = x + down(F.silu(gate) * up)
        return torch.mul(x, factor(x)) * final_norm

    return rows, step


def _after_norm(norm: Any, *linears: Any) -> Callable[..., Tensor]:
    """Several `nn.Linear` of an RMSNorm of a vector, joined, given the vector and what to multiply it with."""
    joined = torch.cat([linear.weight.detach() for linear in linears])
    matrix = _by_columns(joined.mul_(norm.weight).mul_(len(norm.weight) ** 0.5))
    nothing = matrix.new_zeros(len(matrix))
    return lambda x, factor, out=None: torch.addmv(nothing, matrix, x, alpha=factor, out=out)


STEPS: dict[str, Callable[[Any], tuple[Rows, Step]]] = {
    "mamegpt.models.custom_gpt.modeling_custom_gpt.GPTModel": _custom_gpt,
    "mamegpt.models.qwen3.modeling_qwen3.Qwen3": _qwen3,
}
"""By the model's class, named so that nobody waits for an import of it."""
