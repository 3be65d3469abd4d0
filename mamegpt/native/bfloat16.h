// bfloat16, the upper half of a float32, and how matrices of it lie for products.
//
// A product takes the numbers of a sum in twos, a `Pair` of 32 bits. B (K x N) lies "in pairs": [N/16][K/2][16][2], so
// sixteen columns of two rows are one register, and sixteen such registers one tile of AMX.
#pragma once

#include <cstdint>
#include <cstring>

#include "vector.h"

using Bf16 = uint16_t;

static inline int round_up(int n, int unit) { return (n + unit - 1) / unit * unit; }

// Rounded to the nearest, to even if there are two; what is not a number stays none.
static inline Bf16 to_bf16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    if (x != x) return Bf16(bits >> 16 | 0x40);
    return Bf16((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
static inline float to_float(Bf16 x) {
    uint32_t bits = uint32_t(x) << 16;
    float found;
    std::memcpy(&found, &bits, sizeof found);
    return found;
}

// For both kinds of processor: `Pairs` are sixteen; `store_both` stores two rows, rounded, and returns them in pairs;
// `add_pairs` adds both numbers of each; `exp_to_round` is e^x to 3e-6 of itself, for what is then rounded.
#if defined(__AVX512BF16__)
#include "pairs_avx512.h"
#else
#include "pairs_portable.h"
#endif

// out = x rounded, n numbers, a multiple of 16
static inline void round_to(int n, const float* x, Bf16* out) {
    for (int i = 0; i < n; i += 16) store_bf16(out + i, load_wide(x + i));
}

// B = X, where X is (K, N), rows `row` apart; K is even, N a multiple of 16. Panels of B are `panel` apart.
template <typename T>
static inline void in_pairs(int K, int N, const T* x, long row, Bf16* b, long panel) {
    for (int k = 0; k < K; k += 2)
        for (int n = 0; n < N; n += 16)
            store(b + n / 16 * panel + k * 16, two_rows(x + k * row + n, x + (k + 1) * row + n));
}

// B = X^T, where X is (N, K); N is a multiple of 16, K of 32.
template <typename T>
static inline void transposed_in_pairs(int K, int N, const T* x, long row, Bf16* b, long panel) {
    Pairs pairs[16];
    for (int n = 0; n < N; n += 16)
        for (int k = 0; k < K; k += 32) {
            for (int i = 0; i < 16; i++) pairs[i] = one_row(x + (n + i) * row + k);
            transpose(pairs);
            for (int i = 0; i < 16; i++) store(b + n / 16 * panel + (k / 2 + i) * 32, pairs[i]);
        }
}

// out (N, K) = X^T, where X is (K, N); N is a multiple of 16, K of 32.
template <typename T>
static inline void transposed(int K, int N, const T* x, long row, Bf16* out, long out_row) {
    Pairs pairs[16];
    for (int k = 0; k < K; k += 32)
        for (int n = 0; n < N; n += 16) {
            for (int i = 0; i < 16; i++) pairs[i] = two_rows(x + (k + 2 * i) * row + n, x + (k + 2 * i + 1) * row + n);
            transpose(pairs);
            for (int i = 0; i < 16; i++) store(out + (n + i) * out_row + k, pairs[i]);
        }
}
