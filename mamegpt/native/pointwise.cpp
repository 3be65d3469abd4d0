// What lies between the matrix products of a block, each forward and backward in one pass over its tensors: RMSNorm,
// the rotation of queries and keys, SwiGLU. A unit of work is some rows, or some numbers.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "export.h"
#include "step.h"

namespace {

constexpr int64_t NORM_ROWS = 256;  // of a norm; each unit adds up its own part of the weight's gradient
constexpr int64_t NUMBERS = 8192;   // of SwiGLU

template <typename Each>
void share_parts(int64_t n, int64_t part, int n_threads, Each each) {
    Team::run(n_threads, [&](Team& team, int) {
        team.share(int((n + part - 1) / part), [&](int unit) { each(unit, unit * part, std::min(n, (unit + 1) * part)); });
    });
}

// dx of y = x f w with f = 1 / sqrt(mean(x^2) + eps): f w dy - x f^3 mean(w dy x). dw += dy x f. n a multiple of 8
void rms_norm_backward(int n, const float* x, const float* w, float eps, const float* dy, float* dx, float* dw) {
    Vec squares = all(0.0f), dot = all(0.0f);
    for (int i = 0; i < n; i += 8) {
        Vec a = load(x + i);
        squares = fma(a, a, squares);
        dot = fma(load(w + i) * load(dy + i), a, dot);
    }
    float f = 1 / std::sqrt(sum(squares) / float(n) + eps);
    Vec factor = all(f), back = all(f * f * f * sum(dot) / float(n));
    for (int i = 0; i < n; i += 8) {
        Vec a = load(x + i), d = load(dy + i);
        store(dx + i, factor * load(w + i) * d - a * back);
        store(dw + i, fma(d * a, factor, load(dw + i)));
    }
}

// Call each(place) for vectors of a part; numbers that fill none are copied to a place of their own and back.
template <typename Each>
void vectors(int64_t begin, int64_t end, std::initializer_list<const float*> in, std::initializer_list<float*> out,
             Each each) {
    const float* from[4];
    float* to[2];
    std::copy(in.begin(), in.end(), from), std::copy(out.begin(), out.end(), to);
    int64_t i = begin;
    for (; i + 8 <= end; i += 8) each(from, to, i);
    if (i == end) return;
    float inputs[4][8] = {}, outputs[2][8];
    const float* few[4];
    float* found[2] = {outputs[0], outputs[1]};
    for (size_t k = 0; k < in.size(); k++) std::copy(from[k] + i, from[k] + end, inputs[k]), few[k] = inputs[k];
    each(few, found, 0);
    for (size_t k = 0; k < out.size(); k++) std::copy(outputs[k], outputs[k] + (end - i), to[k] + i);
}

}  // namespace

// y (n_rows, n) = RMSNorm of the rows of x, times w (n,); n is a multiple of 8.
EXPORTED void mame_rms_norm(int64_t n_rows, int32_t n, const float* x, const float* w, float eps, float* y,
                            int32_t n_threads) {
    share_parts(n_rows, NORM_ROWS, n_threads, [=](int, int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; r++) normalize({w, nullptr}, eps, n, x + r * n, y + r * n);
    });
}

// How many floats of memory the next function needs.
EXPORTED int64_t mame_rms_norm_memory(int64_t n_rows, int32_t n) { return (n_rows + NORM_ROWS - 1) / NORM_ROWS * n; }

// Fills dx (n_rows, n) and dw (n,).
EXPORTED void mame_rms_norm_backward(int64_t n_rows, int32_t n, const float* x, const float* w, float eps,
                                     const float* dy, float* dx, float* dw, float* memory, int32_t n_threads) {
    share_parts(n_rows, NORM_ROWS, n_threads, [=](int unit, int64_t begin, int64_t end) {
        float* part = memory + int64_t(unit) * n;
        std::fill(part, part + n, 0.0f);
        for (int64_t r = begin; r < end; r++) rms_norm_backward(n, x + r * n, w, eps, dy + r * n, dx + r * n, part);
    });
    std::fill(dw, dw + n, 0.0f);
    for (int64_t part = 0; part < mame_rms_norm_memory(n_rows, n); part += n)
        for (int i = 0; i < n; i++) dw[i] += memory[part + i];
}

// Rotate the heads of x (B, T, H, D) by the angles of `rope` (2, T, D/2), the sines `rope_row` floats after the cosines,
// into y (B, H, T, D); `back` does the reverse. D is a multiple of 16.
EXPORTED void mame_rotate(int32_t B, int32_t T, int32_t H, int32_t D, const float* rope, int64_t rope_row,
                          const float* x, float* y, int32_t back, int32_t n_threads) {
    constexpr int64_t POSITIONS = 64;
    share_parts(int64_t(B) * T, POSITIONS, n_threads, [=](int, int64_t begin, int64_t end) {
        for (int64_t at = begin; at < end; at++)
            for (int64_t h = 0; h < H; h++) {
                int64_t b = at / T, t = at % T, by_position = (at * H + h) * D, by_head = ((b * H + h) * T + t) * D;
                const float *cosines = rope + t * (D / 2), *sines = cosines + rope_row;
                rotate(D, cosines, sines, back ? -1.0f : 1.0f, x + (back ? by_head : by_position),
                       y + (back ? by_position : by_head));
            }
    });
}

// y (n,) = SiLU(gate) * up
EXPORTED void mame_swiglu(int64_t n, const float* gate, const float* up, float* y, int32_t n_threads) {
    share_parts(n, NUMBERS, n_threads, [=](int, int64_t begin, int64_t end) {
        vectors(begin, end, {gate, up}, {y}, [](const float** from, float** to, int64_t i) {
            Vec g = load(from[0] + i);
            store(to[0] + i, g * sigmoid(g) * load(from[1] + i));
        });
    });
}

// d_gate = dy up s (1 + gate (1 - s)) with s = sigmoid(gate), and d_up = dy gate s, (n,) each
EXPORTED void mame_swiglu_backward(int64_t n, const float* gate, const float* up, const float* dy, float* d_gate,
                                   float* d_up, int32_t n_threads) {
    share_parts(n, NUMBERS, n_threads, [=](int, int64_t begin, int64_t end) {
        vectors(begin, end, {gate, up, dy}, {d_gate, d_up}, [](const float** from, float** to, int64_t i) {
            Vec g = load(from[0] + i), d = load(from[2] + i), s = sigmoid(g);
            store(to[0] + i, d * load(from[1] + i) * s * fma(g, all(1.0f) - s, all(1.0f)));
            store(to[1] + i, d * g * s);
        });
    });
}
