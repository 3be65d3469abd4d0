// Causal attention with grouped heads, forward and backward: `eager_attention` of the models in float32.
//
// T positions, D width of a head (a multiple of 16). For one head, with P = softmax(Q K^T / sqrt(D)), future left out:
//
//     O = P V      dV = P^T dO      dS = P * (dO V^T - rowsum(dO * O)) / sqrt(D)      dQ = dS K      dK = dS^T Q
//
// P and dS lie by 16 keys, [T/16][T][16], and only what a position may see is computed. A unit of work is a head of keys
// and values with all heads of queries that share it, so dK and dV are added up in one order.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "export.h"
#include "product.h"
#include "team.h"

namespace {

struct Sizes {
    int T, D, group;  // group: heads of queries for each head of keys
    int panels() const { return (T + WIDE - 1) / WIDE; }
    int padded() const { return panels() * WIDE; }                // T, rounded up to 16
    size_t head() const { return size_t(T) * D; }                 // floats of one head of Q, K, V or O,
    size_t square() const { return size_t(T) * padded(); }        // of P or dS,
    size_t packed() const { return size_t(padded() + TALL) * D; }  // and of what is laid out for products
    size_t scratch() const { return 6 * packed() + square() + 2 * size_t(T); }
};

// What one thread needs beside the inputs: matrices laid out for products, and dS.
struct Scratch {
    float *by_tall, *keys, *k_by_16, *v_by_16, *q_by_16, *d_by_16, *ds, *row, *row_2;
    Scratch(const Sizes& s, float* memory) {
        size_t n = s.packed();
        by_tall = memory, keys = by_tall + n, k_by_16 = keys + n, v_by_16 = k_by_16 + n, q_by_16 = v_by_16 + n;
        d_by_16 = q_by_16 + n, ds = d_by_16 + n, row = ds + s.square(), row_2 = row + s.T;
    }
};

// (T, D) -> [T/TALL][D][TALL]
void pack_by_tall(const Sizes& s, const float* x, float* out) {
    for (int t = 0; t < s.T; t++)
        for (int d = 0; d < s.D; d++) out[size_t(t / TALL * TALL) * s.D + d * TALL + t % TALL] = x[size_t(t) * s.D + d];
}

// (T, D) -> [D/16][padded][16]; beyond the last position there are zeros
void pack_by_16(const Sizes& s, const float* x, float* out) {
    for (int d = 0; d < s.D; d += WIDE)
        for (int t = 0; t < s.padded(); t++, out += WIDE)
            store(out, t < s.T ? load_wide(x + size_t(t) * s.D + d) : all_wide(0.0f));
}

// (T, D) -> [T/16][D][16], its transpose by 16 columns; beyond the last position there are zeros
void pack_transposed(const Sizes& s, const float* x, float* out) {
    for (int panel = 0; panel < s.panels(); panel++)
        for (int d = 0; d < s.D; d++)
            for (int j = 0; j < WIDE; j++, out++) {
                int t = panel * WIDE + j;
                *out = t < s.T ? x[size_t(t) * s.D + d] : 0.0f;
            }
}

int first_row(int panel) { return panel * WIDE / TALL * TALL; }  // the first of the TALL rows that hold the first position to see a panel

// [T/16][T][16] = A B, where A (T, D) lies by TALL and B by 16 keys; each(row, its 16 numbers, how many of them it may see)
template <typename Each>
void square_product(const Sizes& s, const float* a, const float* b, float* out, Each each) {
    for (int panel = 0; panel < s.panels(); panel++) {
        float* c = out + size_t(panel) * s.T * WIDE;
        for (int r = first_row(panel); r < s.T; r += TALL)
            multiply<1, TALL>(std::min(TALL, s.T - r), 1, s.D, a + size_t(r) * s.D, 0L, b + size_t(panel) * WIDE * s.D,
                              c + r * WIDE, long(WIDE), false);
        for (int r = first_row(panel); r < s.T; r++)
            each(r, c + r * WIDE, std::max(0, std::min(WIDE, r + 1 - panel * WIDE)), panel);
    }
}

// (T, D) = M X, where M (T, T) lies by 16 keys and is zero for the future, and X by 16 columns
void times(const Sizes& s, const float* m, const float* x, float* out) {
    for (int r = 0; r < s.T; r += TALL) {
        int n = std::min(TALL, s.T - r), n_panels = (r + n - 1) / WIDE + 1;
        for (int d = 0; d < s.D; d += WIDE)
            multiply<WIDE, 1>(n, n_panels, WIDE, m + r * WIDE, long(s.T) * WIDE, x + size_t(d) * s.padded(),
                              out + size_t(r) * s.D + d, long(s.D), false);
    }
}

// (T, D) = M^T X, or that is added
void transposed_times(const Sizes& s, const float* m, const float* x, float* out, bool add) {
    for (int t = 0, n; t < s.T; t += n) {  // TALL keys at a time, up to the end of a panel
        int panel = t / WIDE, begin = first_row(panel);
        n = std::min({TALL, WIDE - t % WIDE, s.T - t});
        const float* a = m + (size_t(panel) * s.T + begin) * WIDE + t % WIDE;
        for (int d = 0; d < s.D; d += WIDE)
            multiply<1, WIDE>(n, 1, s.T - begin, a, 0L, x + (size_t(d) * s.padded() + size_t(begin) * WIDE),
                              out + size_t(t) * s.D + d, long(s.D), add);
    }
}

// P and O of one head of queries.
void forward(const Sizes& s, const Scratch& m, const float* q, float* p, float* o) {
    const float scale = 1 / std::sqrt(float(s.D));
    float *most = m.row, *sums = m.row_2;
    std::fill(most, most + s.T, -INFINITY), std::fill(sums, sums + s.T, 0.0f);
    pack_by_tall(s, q, m.by_tall);
    square_product(s, m.by_tall, m.keys, p, [&](int r, float* x, int n, int) {
        for (int j = n; j < WIDE; j++) x[j] = -INFINITY;
        if (n) most[r] = std::max(most[r], largest(load_wide(x)));
    });
    auto rows_of_panels = [&](auto each) {
        for (int panel = 0; panel < s.panels(); panel++)
            for (int r = first_row(panel); r < s.T; r++) each(r, p + (size_t(panel) * s.T + r) * WIDE, r + 1 - panel * WIDE);
    };
    rows_of_panels([&](int r, float* x, int n) {
        store(x, exp((load_wide(x) - all_wide(most[r])) * all_wide(scale)));
        for (int j = std::max(0, n); j < WIDE; j++) x[j] = 0.0f;
        sums[r] += sum(load_wide(x));
    });
    rows_of_panels([&](int r, float* x, int) {
        store(x, load_wide(x) * all_wide(1 / sums[r]));
    });
    times(s, p, m.v_by_16, o);
}

// dQ of one head of queries, and its part of dK and dV.
void backward(const Sizes& s, const Scratch& m, const float* q, const float* p, const float* o, const float* d_o,
              float* dq, float* dk, float* dv, bool add) {
    const float scale = 1 / std::sqrt(float(s.D));
    float* dot = m.row;
    for (int t = 0; t < s.T; t++) {
        Vec total = all(0.0f);
        for (int d = 0; d < s.D; d += 8) total = fma(load(o + size_t(t) * s.D + d), load(d_o + size_t(t) * s.D + d), total);
        dot[t] = sum(total);
    }
    pack_by_tall(s, d_o, m.by_tall), pack_by_16(s, d_o, m.d_by_16), pack_by_16(s, q, m.q_by_16);
    square_product(s, m.by_tall, m.keys, m.ds, [&](int r, float* x, int, int panel) {
        const float* at = p + (size_t(panel) * s.T + r) * WIDE;
        store(x, load_wide(at) * (load_wide(x) - all_wide(dot[r])) * all_wide(scale));
    });
    transposed_times(s, p, m.d_by_16, dv, add);
    times(s, m.ds, m.k_by_16, dq);
    transposed_times(s, m.ds, m.q_by_16, dk, add);
}

}  // namespace

// How many floats of memory `mame_attention` and `mame_attention_backward` need, and those of P for one head.
EXPORTED int64_t mame_attention_memory(int32_t T, int32_t D, int32_t n_threads) {
    return int64_t(Sizes{T, D, 1}.scratch()) * n_threads;
}
EXPORTED int64_t mame_attention_square(int32_t T) { return int64_t(Sizes{T, WIDE, 1}.square()); }

// q, o (n * group, T, D); k, v (n, T, D); p (n * group, square). Fills p and o.
EXPORTED void mame_attention(int32_t n, int32_t group, int32_t T, int32_t D, const float* q, const float* k,
                             const float* v, float* p, float* o, float* memory, int32_t n_threads) {
    Sizes s{T, D, group};
    Team::run(n_threads, [&](Team& team, int me) {
        Scratch m(s, memory + s.scratch() * size_t(me));
        team.share(n, [&](int head) {
            pack_transposed(s, k + head * s.head(), m.keys);
            pack_by_16(s, v + head * s.head(), m.v_by_16);
            for (int i = head * group; i < (head + 1) * group; i++)
                forward(s, m, q + i * s.head(), p + i * s.square(), o + i * s.head());
        });
    });
}

// Fills dq, dk and dv, which have the shapes of q, k and v.
EXPORTED void mame_attention_backward(int32_t n, int32_t group, int32_t T, int32_t D, const float* q, const float* k,
                                      const float* v, const float* p, const float* o, const float* d_o, float* dq,
                                      float* dk, float* dv, float* memory, int32_t n_threads) {
    Sizes s{T, D, group};
    Team::run(n_threads, [&](Team& team, int me) {
        Scratch m(s, memory + s.scratch() * size_t(me));
        team.share(n, [&](int head) {
            pack_transposed(s, v + head * s.head(), m.keys);
            pack_by_16(s, k + head * s.head(), m.k_by_16);
            for (int i = head * group; i < (head + 1) * group; i++)
                backward(s, m, q + i * s.head(), p + i * s.square(), o + i * s.head(), d_o + i * s.head(),
                         dq + i * s.head(), dk + head * s.head(), dv + head * s.head(), i > head * group);
        });
    });
}
