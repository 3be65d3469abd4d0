"""The C++ computes the same on other platforms, as far as these can be emulated: ARM by QEMU, Windows by Wine, AVX-512
by Bochs.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import emulator
import numpy as np
import pytest
import torch
from little import ROOT, random_model
from torch import Tensor
from torch.nn import functional as F

from mamegpt.config import TrainConfig
from mamegpt.models.loss import linear_cross_entropy
from mamegpt.models.qwen3.modeling_qwen3 import rms_norm, rope_table, rotate, swiglu
from mamegpt.native.build import COMMON_FLAGS, FLAGS, InstructionSet
from mamegpt.training.ngram_targets import N_DRAWS, NgramTargets
from release.wheels import zig

PROGRAM = """
#include "attention.cpp"
#include "decode.cpp"
#include "draw.cpp"
#include "head.cpp"
#include "pointwise.cpp"
#include <cstdio>

FILE *in, *out;
template <typename T>
std::vector<T> read(size_t n) {
    std::vector<T> x(n);
    if (std::fread(x.data(), sizeof(T), n, in) != n) std::abort();
    return x;
}
template <typename T>
void write(const std::vector<T>& x) { std::fwrite(x.data(), sizeof(T), x.size(), out); }

int main(int, char** files) {
    in = std::fopen(files[1], "rb"), out = std::fopen(files[2], "wb");
    auto n = read<int32_t>(6);
    int threads = n[5];
    if (n[0] == 0) {
        size_t N = n[1], V = n[2], C = n[3], K = n[4];
        auto h = read<float>(N * C), w = read<float>(V * C);
        auto targets = read<int64_t>(N), soft = read<int64_t>(N * K);
        std::vector<double> losses(N + 1);
        std::vector<float> dh(h.size()), dw(w.size()), memory(size_t(mame_head_memory(n[2], n[3], threads, 1)));
        mame_head(n[1], n[2], n[3], n[4], h.data(), w.data(), targets.data(), soft.data(), 0.3f, losses.data(),
                  dh.data(), dw.data(), memory.data(), threads);
        write(std::vector<float>{float(losses[N])}), write(dh), write(dw);
    } else if (n[0] == 2) {
        int V = n[1], C = n[2], H = n[3], T = n[4], D = C / H, F = 24;
        auto matrix = [&](int rows, int columns) { return read<float>(size_t(rows) * size_t(columns)); };
        auto embedding = matrix(V, C), rope = matrix(2 * T, D / 2), before = matrix(1, C), of_q = matrix(1, D);
        auto q = matrix(C, C), k = matrix(C, C), v = matrix(C, C), out = matrix(C, C), gate = matrix(F, C);
        auto down = matrix(C, F), keys = std::vector<float>(size_t(T) * C), values = keys;
        Norm norm{before.data(), nullptr};
        Block block{norm, {of_q.data(), nullptr}, {of_q.data(), nullptr}, {q.data(), nullptr}, {k.data(), nullptr},
                    {v.data(), nullptr}, {out.data(), nullptr}, norm, {gate.data(), nullptr}, {gate.data(), nullptr},
                    {down.data(), nullptr}, keys.data(), values.data()};
        Model m{1, C, H, H, D, F, T, 1e-6f, embedding.data(), nullptr, rope.data(), norm, &block};
        std::vector<float> memory(size_t(mame_step_memory(&m, threads))), states(size_t(T) * C);
        for (int t = 0; t < T; t++) mame_step(&m, t % V, t, states.data() + size_t(t) * C, memory.data(), threads);
        std::vector<int8_t> rounded(embedding.size());
        std::vector<int16_t> whole(C, 0);
        std::vector<int32_t> rough(V);
        for (int c = 0; c < C; c++) whole[c] = int16_t(embedding[C + c] * 20);
        float most = float(mame_round(V, C, embedding.data(), 5.0f, rounded.data()));
        mame_most_likely(V, C, embedding.data(), rounded.data(), states.data(), whole.data(), 0, rough.data(), threads);
        write(states), write(std::vector<float>{most}), write(std::vector<float>(rough.begin(), rough.end()));
    } else if (n[0] == 3) {
        int rows = n[1], width = n[2];
        auto x = read<float>(size_t(rows) * width), w = read<float>(width), rope = read<float>(x.size()), dy = x;
        std::vector<float> y(x), dx(x), dw(w), rotated(x), gated(x), d_gate(x), d_up(x);
        std::vector<float> memory(size_t(mame_rms_norm_memory(rows, width)));
        mame_rms_norm(rows, width, x.data(), w.data(), 1e-6f, y.data(), threads);
        mame_rms_norm_backward(rows, width, x.data(), w.data(), 1e-6f, dy.data(), dx.data(), dw.data(), memory.data(),
                               threads);
        mame_rotate(1, rows, 1, width, rope.data(), int64_t(rope.size() / 2), x.data(), rotated.data(), 0, threads);
        mame_swiglu(int64_t(x.size()) - 3, x.data(), rope.data(), gated.data(), threads);
        mame_swiglu_backward(int64_t(x.size()), x.data(), rope.data(), dy.data(), d_gate.data(), d_up.data(), threads);
        write(y), write(dx), write(dw), write(rotated), write(gated), write(d_gate), write(d_up);
    } else if (n[0] == 4) {
        int B = n[1], T = n[2], K = n[3], vocab = n[4];
        auto sizes = read<int64_t>(3);
        std::vector<int64_t> levels[3] = {read<int64_t>(sizes[0]), read<int64_t>(sizes[1]), read<int64_t>(sizes[2])};
        const int64_t* keys[3] = {levels[0].data(), levels[1].data(), levels[2].data()};
        auto ids = read<int64_t>(size_t(B) * T);
        auto random = read<double>(size_t(3) * B * T * (1 + K));
        std::vector<int64_t> drawn(size_t(B) * T * K);
        mame_draw(3, keys, sizes.data(), vocab, 0.75, B, T, K, ids.data(), random.data(), drawn.data(), threads);
        write(std::vector<float>(drawn.begin(), drawn.end()));
    } else {
        int heads = n[1], group = n[2], T = n[3], D = n[4];
        size_t one = size_t(heads) * T * D;
        auto q = read<float>(one * group), k = read<float>(one), v = read<float>(one), d_o = read<float>(one * group);
        std::vector<float> o(q.size()), dq(o), dk(one), dv(one), p(size_t(heads) * group * mame_attention_square(T));
        std::vector<float> memory(size_t(mame_attention_memory(T, D, threads)));
        mame_attention(heads, group, T, D, q.data(), k.data(), v.data(), p.data(), o.data(), memory.data(), threads);
        mame_attention_backward(heads, group, T, D, q.data(), k.data(), v.data(), p.data(), o.data(), d_o.data(),
                                dq.data(), dk.data(), dv.data(), memory.data(), threads);
        write(o), write(dq), write(dk), write(dv);
    }
    std::fclose(out);
}
"""
PLACES = {
    "ARM": ("aarch64-linux-musl", "neon", "qemu-aarch64"),
    "ARM, portable": ("aarch64-linux-musl", "portable", "qemu-aarch64"),
    "Windows": ("x86_64-windows-gnu", "avx2", "wine"),
    "AVX-512": (emulator.EMULATED_TARGET, "avx512", "bochs"),
}
PROCESSOR = "corei7_skylake_x"
"""What Bochs emulates."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),  # Zig compiles the C++ library first, for each platform
    pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="no compiler for other platforms"),
]


class Place:
    """A platform on which the program runs."""

    def __init__(self, target: str, instructions: InstructionSet, runner: str, folder: Path) -> None:
        if shutil.which(runner) is None or (runner == "bochs" and not emulator.has_processor(PROCESSOR)):
            pytest.skip(f"{runner} is not installed")
        self.runner, self.folder, self.program = runner, folder, folder / "program.exe"
        source = folder / "program.cpp"
        source.write_text(PROGRAM, encoding="utf-8")
        flags = [flag for flag in COMMON_FLAGS if flag not in ("-shared", "-fPIC")] + FLAGS[instructions]
        flags += emulator.LINK_FLAGS if runner == "bochs" else ["-static"]
        command = [*zig(target), *flags, "-I", str(ROOT / "mamegpt" / "native"), str(source)]
        subprocess.run([*command, "-o", str(self.program)], check=True)

    def results(self, sizes: list[int], inputs: list[Tensor], shapes: list[torch.Size]) -> list[Tensor]:
        """What the program computes from sizes, the last of which is the number of threads, and inputs: tensors of
        these shapes. Bochs has one thread.
        """
        sizes = [*sizes[:-1], 1] if self.runner == "bochs" else sizes
        given = np.array(sizes, np.int32).tobytes() + b"".join(x.numpy().tobytes() for x in inputs)
        numbers = torch.frombuffer(bytearray(self._run(given)), dtype=torch.float32)
        return [
            part.view(shape) for part, shape in zip(numbers.split([s.numel() for s in shapes]), shapes, strict=True)
        ]

    def _run(self, given: bytes) -> bytes:
        """What the program writes into its second file if the first one is this."""
        if self.runner == "bochs":
            return emulator.run(self.program, given, PROCESSOR)
        (self.folder / "in").write_bytes(given)
        env = {**os.environ, "WINEDEBUG": "-all", "WINEPREFIX": str(self.folder / "wine")}
        subprocess.run([self.runner, self.program.name, "in", "out"], cwd=self.folder, env=env, check=True)
        return (self.folder / "out").read_bytes()


@pytest.fixture(scope="module", params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(*PLACES[request.param], tmp_path_factory.mktemp("place"))  # type: ignore[arg-type]


def test_avx512_gives_the_bits_of_avx2(tmp_path: Path) -> None:
    """Its sums run in the same order, so a run continues on another processor as it was."""
    random = torch.Generator().manual_seed(1)
    of_head = [torch.randn(n, 48, generator=random) for n in (97, 301)]
    of_head += [torch.randint(301, shape, generator=random) for shape in ((97,), (97, 3))]
    of_attention = [torch.randn(n, 37, 48, generator=random) for n in (6, 2, 2, 6)]
    found = []
    for instructions in ("avx512", "avx2"):
        (folder := tmp_path / instructions).mkdir()
        place = Place(emulator.EMULATED_TARGET, instructions, "bochs", folder)
        shapes = [torch.Size([1]), torch.Size([97, 48]), torch.Size([301, 48])]
        found.append(place.results([0, 97, 301, 48, 3, 1], of_head, shapes))
        shapes = [torch.Size([6, 37, 48])] * 2 + [torch.Size([2, 37, 48])] * 2
        found[-1] += place.results([1, 2, 3, 37, 48, 1], of_attention, shapes)
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize(
    ("N", "V", "C", "K", "n_threads", "scale"),
    [(1, 1, 16, 0, 1, 1.0), (97, 301, 48, 3, 2, 1.0), (99, 64, 16, 1, 3, 50.0)],
)
def test_the_head_equals_float64(place: Place, N: int, V: int, C: int, K: int, n_threads: int, scale: float) -> None:
    random = torch.Generator().manual_seed(V)
    hidden, weight = torch.randn(N, C, generator=random), scale * C**-0.5 * torch.randn(V, C, generator=random)
    targets, soft = torch.randint(V, (N,), generator=random), torch.randint(V, (N, K), generator=random)
    inputs = [x.double().requires_grad_() for x in (hidden, weight)]
    share = 0.3 if K else 1.0
    loss = linear_cross_entropy(*inputs, targets, soft_targets=soft if K else None, true_share=share)
    exact = [loss, *torch.autograd.grad(loss, inputs)]
    shapes = [torch.Size([1]), hidden.shape, weight.shape]
    found = place.results([0, N, V, C, K, n_threads], [hidden, weight, targets, soft], shapes)
    if not K:  # the program's share is of soft targets, of which there are none
        found[1:], exact[1:] = [], []
    for x, y in zip(found, exact, strict=True):
        assert (x.double() - y).norm() <= 2e-6 * scale * (y.norm() + N)


@pytest.mark.parametrize(("n", "group", "T", "D", "n_threads"), [(1, 1, 1, 16, 1), (2, 3, 37, 48, 3)])
def test_attention_equals_float64(place: Place, n: int, group: int, T: int, D: int, n_threads: int) -> None:
    random = torch.Generator().manual_seed(T)
    q, k, v, d_o = (torch.randn(1, heads, T, D, generator=random) for heads in (n * group, n, n, n * group))
    inputs = [x.double().requires_grad_() for x in (q, k, v)]
    out = F.scaled_dot_product_attention(*inputs, is_causal=True, enable_gqa=True)
    exact = [out, *torch.autograd.grad(out, inputs, d_o.double())]
    found = place.results([1, n, group, T, D, n_threads], [q, k, v, d_o], [q.shape, q.shape, k.shape, k.shape])
    for x, y in zip(found, exact, strict=True):
        assert (x.double() - y).norm() <= 4e-6 * (y.norm() + 1)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_decoding_step_equals_float64(place: Place, n_threads: int) -> None:
    V, C, H, T, F_ = 61, 32, 2, 9, 24
    model = random_model(
        TrainConfig(
            context_length=T,
            emb_dim=C,
            n_layers=1,
            n_heads=H,
            ffn_dim=F_,
            norm_eps=1e-6,
            tie_embeddings=True,
            drop_rate=0.0,
        ).model(V),
        architecture="qwen3",
    )
    body: Any = model.model
    block = body.layers[0]
    attention, mlp = block.self_attn, block.mlp
    with torch.no_grad():  # the program has one tensor for each of these pairs
        block.post_attention_layernorm.weight.copy_(block.input_layernorm.weight)
        body.norm.weight.copy_(block.input_layernorm.weight)
        attention.k_norm.weight.copy_(attention.q_norm.weight)
        mlp.up_proj.weight.copy_(mlp.gate_proj.weight)
    embedding = body.embed_tokens.weight.detach()
    layers = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj, mlp.gate_proj, mlp.down_proj)
    inputs = [embedding, body.rope, block.input_layernorm.weight, attention.q_norm.weight, *(x.weight for x in layers)]
    shapes = [torch.Size([T, C]), torch.Size([1]), torch.Size([V])]
    found = place.results([2, V, C, H, T, n_threads], [x.detach() for x in inputs], shapes)
    with torch.inference_mode():
        expected = model.double().hidden(torch.arange(T)[None])[0]
    assert (found[0].double() - expected).norm() <= 1e-5 * expected.norm()
    rounded = torch.round(embedding.float() * (127 / 5.0)).long()
    whole = (embedding[1].float() * 20).to(torch.int16).long()
    assert found[1].item() == rounded.abs().sum(1).max() and torch.equal(found[2].long(), (rounded * whole).sum(1))


def test_what_lies_between_products_equals_float64(place: Place) -> None:
    rows, n = 300, 32
    random = torch.Generator().manual_seed(1)
    x, weight = torch.randn(rows, n, generator=random), torch.randn(n, generator=random)
    rope = rope_table(rows, n, 10_000.0)
    inputs = [tensor.double().requires_grad_() for tensor in (x, weight, rope.view(rows, n))]
    normed, gated = rms_norm(inputs[0], inputs[1], 1e-6), swiglu(inputs[0], inputs[2])
    exact = [normed, *torch.autograd.grad(normed, inputs[:2], x.double())]
    exact += [rotate(x.double()[None, None], rope.double())[0, 0], gated]
    exact += torch.autograd.grad(gated, (inputs[0], inputs[2]), x.double())
    found = place.results([3, rows, n, 0, 0, 3], [x, weight, rope], [y.shape for y in exact])
    n_gated = rows * n - 3  # the program leaves the others as they are
    found[4], exact[4] = found[4].flatten()[:n_gated], gated.detach().flatten()[:n_gated]
    for a, b in zip(found, exact, strict=True):
        assert (a.double() - b).norm() <= 2e-6 * (b.norm() + b.numel() ** 0.5)


def test_what_is_drawn_from_counts_is_what_numpy_draws(place: Place) -> None:
    B, T, V = 3, 40, 50
    random = np.random.default_rng(0)
    tokens, ids = np.minimum(random.pareto(0.8, 2000).astype(np.int64), V - 1), random.integers(0, V, (B, T))
    targets = NgramTargets(tokens, V, seed=1)
    numbers = targets.random(B, T, step=2)
    inputs = [np.array([len(keys) for keys in targets.levels]), *targets.levels, ids, numbers]
    found = place.results([4, B, T, N_DRAWS, V, 3], list(map(torch.from_numpy, inputs)), [torch.Size([B, T, N_DRAWS])])
    assert np.array_equal(found[0].numpy(), targets.draw(ids, step=2))


def test_what_is_no_number_stays_none(place: Place) -> None:
    hidden, weight = torch.randn(5, 16), torch.randn(30, 16)
    hidden[2, 3] = float("nan")
    inputs = [hidden, weight, torch.zeros(5, dtype=torch.int64)]
    loss, dh, _ = place.results([0, 5, 30, 16, 0, 1], inputs, [torch.Size([1]), hidden.shape, weight.shape])
    assert loss.isnan() and dh[2].isnan().all() and dh[:2].isfinite().all()
