"""Sanitizers find nothing in the C++, over many shapes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from little import ROOT
from native_helpers import SETS_OF_BF16

from mamegpt.native.build import COMMON_FLAGS, FLAGS, InstructionSet
from mamegpt.system.hardware import cpp_compiler

PROGRAM = """
#include "attention.cpp"
#include "decode.cpp"
#include "draw.cpp"
#include "head.cpp"
#include "pointwise.cpp"
#include "room.h"
#include <cstdio>
#ifdef __AMX_TILE__
#include <sys/syscall.h>
#include <unistd.h>
bool allow_tiles() { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }
#else
bool allow_tiles() { return true; }
#endif

extern "C" {  // what is compiled by itself
int64_t mame_head_bf16_memory(int32_t, int32_t, int32_t, int32_t);
int32_t mame_head_bf16(int32_t, int32_t, int32_t, int32_t, const float*, const float*, const int64_t*, const int64_t*,
                       float, double*, float*, float*, void*, int32_t);
int64_t mame_block_kept(const int32_t*, int32_t);
int64_t mame_block_memory(const int32_t*, int32_t, int32_t);
void mame_block(const int32_t*, float, int32_t, const float* const*, const float*, const float*, int64_t, void*, float*,
                void*, int32_t);
void mame_block_backward(const int32_t*, float, int32_t, const float* const*, const float*, const float*, int64_t,
                         void*, const float*, float*, float* const*, void*, int32_t);
int64_t mame_muon_memory(int32_t, int32_t);
void mame_muon(int32_t, const int32_t*, const float*, int32_t, float* const*, const float* const*, float* const*, void*,
               int64_t, int32_t);
}

// Memory that begins on a line of the cache, with nothing behind it.
struct Bytes {
    explicit Bytes(int64_t n) : all(size_t(n) + LINE) {}
    void* begin() {
        size_t past = reinterpret_cast<size_t>(all.data()) % LINE;
        return all.data() + (past ? LINE - past : 0);
    }
    std::vector<char> all;
};

bool head(size_t N, int V, int C, int K, int threads, bool gradients) {
    std::vector<float> h(N * C), w(V * C), dh(h.size()), dw(w.size());
    std::vector<int64_t> targets(N), soft(N * K);
    std::vector<double> losses(N + 1);
    for (size_t i = 0; i < h.size(); i++) h[i] = float(i % 13) * (i % 7 == 0 ? 9.0f : 0.1f);
    for (size_t i = 0; i < w.size(); i++) w[i] = float(i % 11) - 5;
    for (size_t i = 0; i < targets.size(); i++) targets[i] = int64_t(i) % V;
    for (size_t i = 0; i < soft.size(); i++) soft[i] = int64_t(7 * i) % V;
    std::vector<float> memory(size_t(mame_head_memory(V, C, threads, gradients)));
    float *to_h = gradients ? dh.data() : nullptr, *to_w = gradients ? dw.data() : nullptr;
    if (mame_head(int(N), V, C, K, h.data(), w.data(), targets.data(), soft.data(), 0.5f, losses.data(), to_h, to_w,
                  memory.data(), threads))
        return false;
    if (C % 32) return true;
    Bytes room(mame_head_bf16_memory(V, C, threads, gradients));
    return !mame_head_bf16(int(N), V, C, K, h.data(), w.data(), targets.data(), soft.data(), 0.5f, losses.data(), to_h,
                           to_w, room.begin(), threads);
}

bool block(int n, int T, int H, int G, int D, int F, bool normalizes, int threads) {
    constexpr int C = 32;
    const int32_t sizes[] = {n, T, C, H, G, D, F};
    const int widths[] = {C, H * D * C, G * D * C, G * D * C, D, D, C * H * D, C, F * C, F * C, C * F};
    std::vector<std::vector<float>> weights, gradients;
    const float* w[11];
    float* dw[11];
    for (int i = 0; i < 11; i++) {
        weights.emplace_back(widths[i]), gradients.emplace_back(widths[i]);
        for (int j = 0; j < widths[i]; j++) weights[i][j] = (float((i + j) % 13) - 6) * 0.05f;
        bool there = normalizes || (i != 4 && i != 5);
        w[i] = there ? weights[i].data() : nullptr, dw[i] = there ? gradients[i].data() : nullptr;
    }
    std::vector<float> x(size_t(n) * T * C), out(x), dx(x), rope(size_t(T) * D, 0.7f);
    for (size_t i = 0; i < x.size(); i++) x[i] = float(i % 11) - 5;
    Bytes kept(mame_block_kept(sizes, normalizes)), room(mame_block_memory(sizes, normalizes, threads));
    mame_block(sizes, 1e-6f, normalizes, w, x.data(), rope.data(), int64_t(T) * D / 2, kept.begin(), out.data(),
               room.begin(), threads);
    mame_block_backward(sizes, 1e-6f, normalizes, w, x.data(), rope.data(), int64_t(T) * D / 2, kept.begin(), x.data(),
                        dx.data(), dw, room.begin(), threads);
    for (float one : dx) if (!(one - one == 0)) return false;
    for (const auto& gradient : gradients) for (float one : gradient) if (!(one - one == 0)) return false;
    return true;
}

bool muon(int rows, int columns, int threads) {
    const int n = 4;
    std::vector<float> weights[n], gradients[n], momenta[n];
    int32_t shapes[2 * n];
    float *w[n], *of_w[n];
    const float* g[n];
    for (int i = 0; i < n; i++) {
        shapes[2 * i] = i % 2 ? columns : rows, shapes[2 * i + 1] = i % 2 ? rows : columns;
        weights[i].assign(size_t(rows) * columns, 0.1f), momenta[i].assign(weights[i].size(), 0.0f);
        for (size_t k = 0; k < weights[i].size(); k++) gradients[i].push_back(float(int(k + i) % 13) - 6);
        w[i] = weights[i].data(), g[i] = gradients[i].data(), of_w[i] = momenta[i].data();
    }
    const float settings[] = {0.02f, 0.95f, 0.1f, 3.4445f, -4.775f, 2.0315f, 1e-7f};
    int64_t bytes = std::max(mame_muon_memory(rows, columns), mame_muon_memory(columns, rows));
    Bytes room(bytes * threads);
    mame_muon(n, shapes, settings, 5, w, g, of_w, room.begin(), bytes, threads);
    for (const auto& weight : weights) for (float one : weight) if (!(one - one == 0)) return false;
    return true;
}

bool draw(int vocab, int B, int T, int K, int levels, int threads) {
    std::vector<int64_t> keys[3], ids, drawn(size_t(B) * T * K);
    const int64_t* begin[3];
    int64_t sizes[3];
    for (int64_t i = 0, n = vocab; i < levels; i++, n *= vocab) {
        for (int64_t key = 0; key < std::min<int64_t>(n, 500); key++) keys[i].push_back(key / 2);
        begin[i] = keys[i].data(), sizes[i] = int64_t(keys[i].size());
    }
    for (int i = 0; i < B * T; i++) ids.push_back(i * 7 % vocab);
    std::vector<double> random(size_t(levels) * B * T * (1 + K));
    for (size_t i = 0; i < random.size(); i++) random[i] = double(i % 97) / 97;
    mame_draw(levels, begin, sizes, vocab, 0.75, B, T, K, ids.data(), random.data(), drawn.data(), threads);
    for (int64_t token : drawn) if (token < 0 || token >= vocab) return false;
    return true;
}

bool attention(int n, int group, int T, int D, int threads) {
    std::vector<float> q(size_t(n) * group * T * D), k(size_t(n) * T * D), v(k), o(q), d_o(q), dq(q), dk(k), dv(k);
    for (size_t i = 0; i < q.size(); i++) q[i] = float(i % 13) - 6, d_o[i] = float(i % 5);
    for (size_t i = 0; i < k.size(); i++) k[i] = float(i % 11) - 5, v[i] = float(i % 3);
    std::vector<float> p(size_t(n) * group * size_t(mame_attention_square(T)));
    std::vector<float> memory(size_t(mame_attention_memory(T, D, threads)));
    mame_attention(n, group, T, D, q.data(), k.data(), v.data(), p.data(), o.data(), memory.data(), threads);
    mame_attention_backward(n, group, T, D, q.data(), k.data(), v.data(), p.data(), o.data(), d_o.data(), dq.data(),
                            dk.data(), dv.data(), memory.data(), threads);
    for (float x : dk) if (!(x - x == 0)) return false;
    return true;
}

bool decode(int H, int K, int D, int F, int capacity, bool is_gpt, int threads) {
    constexpr int V = 61;
    int C = 32;
    auto numbers = [](size_t n) {
        std::vector<float> x(n);
        for (size_t i = 0; i < n; i++) x[i] = (float(i % 13) - 6) * 0.05f;
        return x;
    };
    auto c = numbers(C), d = numbers(D), f = numbers(F), up = numbers(F * C), q = numbers(H * D * C);
    auto k = numbers(K * D * C), qb = numbers(H * D), kb = numbers(K * D), embedding = numbers(V * C);
    auto positions = numbers(capacity * C), rope = numbers(capacity * D);
    auto keys = numbers(K * capacity * D), values = keys;
    Norm norm{c.data(), is_gpt ? c.data() : nullptr}, of_head{is_gpt ? nullptr : d.data(), nullptr};
    Linear in{q.data(), is_gpt ? qb.data() : nullptr}, in_k{k.data(), is_gpt ? kb.data() : nullptr};
    Linear wide{up.data(), is_gpt ? f.data() : nullptr}, narrow{up.data(), is_gpt ? c.data() : nullptr};
    Block block{norm, of_head, of_head, in, in_k, in_k, {q.data(), nullptr}, norm,
                {is_gpt ? nullptr : up.data(), nullptr}, wide, narrow, keys.data(), values.data()};
    Model m{1, C, H, K, D, F, capacity, 1e-6f, embedding.data(), is_gpt ? positions.data() : nullptr,
            is_gpt ? nullptr : rope.data(), norm, &block};
    std::vector<float> memory(size_t(mame_step_memory(&m, threads))), state(C), logits(V);
    for (int t = 0; t < capacity; t++) mame_step(&m, t % V, t, state.data(), memory.data(), threads);
    mame_logits(V, C, embedding.data(), state.data(), logits.data(), threads);
    std::vector<int8_t> rounded(embedding.size());
    std::vector<int16_t> x(C, 3);
    std::vector<int32_t> rough(V);
    mame_round(V, C, embedding.data(), 0.3f, rounded.data());
    int best = mame_most_likely(V, C, embedding.data(), rounded.data(), state.data(), x.data(), 99, rough.data(),
                                threads);
    for (float logit : logits) if (!(logit - logit == 0)) return false;
    return 0 <= best && best < V;
}

bool pointwise(int rows, int n, int threads) {
    size_t N = size_t(rows) * n;
    std::vector<float> x(N), y(N), dx(N), dw(n), w(n, 2.0f), rope(N);
    for (size_t i = 0; i < N; i++) x[i] = float(i % 13) - 6, rope[i] = 0.7f;
    std::vector<float> memory(size_t(mame_rms_norm_memory(rows, n)));
    mame_rms_norm(rows, n, x.data(), w.data(), 1e-6f, y.data(), threads);
    mame_rms_norm_backward(rows, n, x.data(), w.data(), 1e-6f, y.data(), dx.data(), dw.data(), memory.data(), threads);
    if (n % 16 == 0) mame_rotate(1, rows, 1, n, rope.data(), int64_t(N / 2), x.data(), y.data(), rows % 2, threads);
    int some = int(N) - rows % 8;
    mame_swiglu(some, x.data(), dx.data(), y.data(), threads);
    mame_swiglu_backward(some, x.data(), y.data(), rope.data(), dx.data(), y.data(), threads);
    for (float a : dw) if (!(a - a == 0)) return false;
    return true;
}

int main() {
    bool good = allow_tiles();
    for (int threads : {1, 2, 3}) {
        for (int T : {1, 32, 33}) for (int F : {8, 40}) for (bool normalizes : {false, true}) for (int n : {1, 4})
            good &= block(n, T, 2, 1, 64, F, normalizes, threads) && block(n, T, 1, 1, 32, F, normalizes, threads);
        for (int C : {16, 32, 48}) for (int V : {1, 15, 16, 17, 300}) for (size_t N : {0, 1, 5, 96, 97, 250})
            for (int K : {0, 3}) for (bool gradients : {false, true}) good &= head(N, V, C, K, threads, gradients);
        for (int T : {1, 5, 6, 15, 16, 17, 37, 96, 97}) for (int D : {16, 48})
            for (int group : {1, 2}) for (int n : {1, 4})
                good &= attention(n, group, T, D, threads);
        for (int rows : {1, 3, 256, 300}) for (int n : {8, 16, 48}) good &= pointwise(rows, n, threads);
        for (int rows : {1, 31, 32, 40}) for (int columns : {1, 32, 70}) good &= muon(rows, columns, threads);
        for (int vocab : {1, 9, 40}) for (int T : {1, 2, 33}) for (int K : {1, 16}) for (int levels : {1, 2, 3})
            good &= draw(vocab, 1 + T % 3, T, K, levels, threads);
        for (bool is_gpt : {false, true}) for (int capacity : {1, 9, 16, 33}) for (int F : {8, 24, 48})
            for (int D : {16, 48})
                good &= decode(4, 2, D, F, capacity, is_gpt, threads) && decode(1, 1, D, F, capacity, is_gpt, threads);
    }
    std::puts(good ? "clean" : "wrong");
}
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32" or cpp_compiler() is None, reason="no sanitizers")
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
@pytest.mark.parametrize("instructions", SETS_OF_BF16)
def test_sanitizers_find_nothing(instructions: InstructionSet, sanitizer: str, tmp_path: Path) -> None:
    source, program, command = tmp_path / "all.cpp", tmp_path / "all", cpp_compiler()
    assert command is not None
    source.write_text(PROGRAM, encoding="utf-8")
    flags = [flag for flag in COMMON_FLAGS if flag != "-shared"] + FLAGS[instructions]
    flags += ["-O1", "-g", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-Wall", "-Wextra", "-Werror"]
    if "-mavx512f" in flags:  # GCC 12 warns of its own header, in which undefined registers are what they say
        flags += ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]
    folder = ROOT / "mamegpt" / "native"
    sources = [source, folder / "block.cpp", folder / "head_bf16.cpp", folder / "muon.cpp"]
    subprocess.run([*command, *flags, "-I", str(folder), *map(str, sources), "-o", str(program)], check=True)
    done = subprocess.run([program], capture_output=True, encoding="utf-8", check=False)
    assert done.stdout == "clean\n", done.stderr[:2000]
