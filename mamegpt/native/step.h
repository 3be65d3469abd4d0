// Operations on vectors in float32, and matrices that are read row by row as they are stored.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "team.h"
#include "vector.h"

struct Norm {
    const float *scale, *shift;  // (n,); no shift: RMSNorm, else LayerNorm; no scale: none
};
struct Linear {
    const float *weight, *bias;  // (rows, columns), (rows,) or null
};

// y[i] = W[i] . x for R rows of W (R, n), n a multiple of 8
template <int R>
static inline void dots(const float* w, int n, const float* x, float* y) {
    Wide sums[R];
    for (Wide& one : sums) one = all_wide(0.0f);
    int c = 0;
    for (; c + 16 <= n; c += 16)
        for (int i = 0; i < R; i++) sums[i] = fma(load_wide(w + size_t(i) * n + c), load_wide(x + c), sums[i]);
    for (int i = 0; i < R; i++) {
        Vec low = lower(sums[i]);
        if (c < n) low = fma(load(w + size_t(i) * n + c), load(x + c), low);
        y[i] = sum(low + upper(sums[i]));
    }
}

// The same for any number of rows.
static inline void rows_times(const float* w, int n_rows, int n, const float* x, float* y) {
    int r = 0;
    for (; r + 4 <= n_rows; r += 4) dots<4>(w + size_t(r) * n, n, x, y + r);
    for (; r < n_rows; r++) dots<1>(w + size_t(r) * n, n, x, y + r);
}

struct Product {
    Linear layer;
    int n_rows;
    float* y;  // (n_rows,)
};
constexpr int ROWS_OF_A_UNIT = 32;

// y = W x + bias, or y += that, for several matrices with n columns
static inline void multiply(Team& team, std::initializer_list<Product> products, int n, const float* x, bool add) {
    auto units = [](const Product& p) { return (p.n_rows + ROWS_OF_A_UNIT - 1) / ROWS_OF_A_UNIT; };
    int n_units = 0;
    for (const Product& p : products) n_units += units(p);
    team.share(n_units, [&](int unit) {
        const Product* p = products.begin();
        for (; unit >= units(*p); p++) unit -= units(*p);
        int begin = unit * ROWS_OF_A_UNIT, n_rows = std::min(ROWS_OF_A_UNIT, p->n_rows - begin);
        float found[ROWS_OF_A_UNIT];
        rows_times(p->layer.weight + size_t(begin) * n, n_rows, n, x, found);
        for (int i = 0; i < n_rows; i++) {
            float y = found[i] + (p->layer.bias ? p->layer.bias[begin + i] : 0.0f);
            p->y[begin + i] = add ? p->y[begin + i] + y : y;
        }
    });
}

// out = norm(x), (n,), n a multiple of 8; out may be x
static inline void normalize(const Norm& norm, float eps, int n, const float* x, float* out) {
    auto mean = [=](auto of) {
        Vec total = all(0.0f);
        for (int i = 0; i < n; i += 8) total = total + of(load(x + i));
        return sum(total) / float(n);
    };
    Vec middle = all(norm.shift ? mean([](Vec a) { return a; }) : 0.0f);
    Vec factor = all(1 / std::sqrt(mean([=](Vec a) { return (a - middle) * (a - middle); }) + eps));
    for (int i = 0; i < n; i += 8) {
        Vec y = (load(x + i) - middle) * factor * load(norm.scale + i);
        store(out + i, norm.shift ? y + load(norm.shift + i) : y);
    }
}

// y = the pairs (x[i], x[i + D/2]) of a head (D,), rotated by angles, given as cosines and sines (D/2,), or by their
// negatives if `sign` is -1; D a multiple of 16, y may be x
static inline void rotate(int D, const float* cosines, const float* sines, float sign, const float* x, float* y) {
    for (int i = 0; i < D / 2; i += 8) {
        Vec a = load(x + i), b = load(x + D / 2 + i), cosine = load(cosines + i), sine = all(sign) * load(sines + i);
        store(y + i, a * cosine - b * sine);
        store(y + D / 2 + i, b * cosine + a * sine);
    }
}

// out = softmax(K q / sqrt(D)) V for one head: K, V (n, D), q and out (D,), D a multiple of 16; p has room for n + 7
static inline void attend(int n, int D, const float* q, const float* k, const float* v, float* p, float* out) {
    rows_times(k, n, D, q, p);
    float most = *std::max_element(p, p + n);
    Vec total = all(0.0f), scale = all(1 / std::sqrt(float(D)));
    for (int i = n; i % 8; i++) p[i] = -INFINITY;
    for (int i = 0; i < n; i += 8) store(p + i, exp((load(p + i) - all(most)) * scale));
    for (int i = n; i % 8; i++) p[i] = 0.0f;
    for (int i = 0; i < n; i += 8) total = total + load(p + i);
    Vec inverse = all(1 / sum(total));
    for (int d = 0; d < D; d += 16) {
        Vec even[2] = {all(0.0f), all(0.0f)}, odd[2] = {all(0.0f), all(0.0f)};
        for (int i = 0; i < n; i++) {
            Vec weight = all(p[i]), *sums = i % 2 ? odd : even;
            for (int j = 0; j < 2; j++) sums[j] = fma(weight, load(v + size_t(i) * D + d + 8 * j), sums[j]);
        }
        for (int j = 0; j < 2; j++) store(out + d + 8 * j, (even[j] + odd[j]) * inverse);
    }
}

static inline Vec sigmoid(Vec x) { return all(1.0f) / (all(1.0f) + exp(all(0.0f) - x)); }

// out = SiLU(gate) * up, or without a gate GELU(up), by tanh: (n,), n a multiple of 8
static inline void activate(int n, const float* gate, const float* up, float* out) {
    for (int i = 0; i < n; i += 8) {
        Vec x = load(up + i);
        if (gate) {
            Vec g = load(gate + i);
            store(out + i, g * sigmoid(g) * x);
        } else {  // (1 + tanh(u)) / 2 = sigmoid(2 u), here with u = sqrt(2 / pi) (x + 0.044715 x^3)
            store(out + i, x * sigmoid(all(1.59576912f) * fma(all(0.044715f) * x, x * x, x)));
        }
    }
}
