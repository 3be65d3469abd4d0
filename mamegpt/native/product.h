// Matrix products C (M x 16) = A (M x K) B (K x 16), or C += A B, with TALL rows of C in registers at a time: six, or
// twelve where AVX-512 has a register for each.
//
// Matrices lie in panels, so that every loop reads memory from front to back:
//   by 16:    [N/16][K][16], a panel of 16 columns after another
//   by TALL:  [M/TALL][K][TALL], a panel of that many rows after another
// A sum runs over k in order, whatever the sizes and whoever computes it, so its bits depend on the numbers alone.
#pragma once

#include "vector.h"

constexpr int WIDE = 16;  // columns of a panel, the numbers of a `Wide`

// K = n_panels * depth. A (i, k) is a[panel of k][i * AI + k % depth * AK], panels a_panel apart; AI and AK are
// <1, TALL> if A lies by TALL, <WIDE, 1> if it lies by 16. B is one panel by 16. Rows of C are c_row apart.
template <int M, int AI, int AK>
static inline void multiply_rows(int n_panels, int depth, const float* a, long a_panel, const float* b, float* c,
                                 long c_row, bool add) {
    Wide sum[M];
    for (int i = 0; i < M; i++) sum[i] = all_wide(0.0f);
    for (int panel = 0; panel < n_panels; panel++, a += a_panel)
        for (int k = 0; k < depth; k++, b += WIDE) {
            Wide row = load_wide(b);
#pragma GCC unroll 12
            for (int i = 0; i < M; i++) sum[i] = fma(all_wide(a[i * AI + k * AK]), row, sum[i]);
        }
    for (int i = 0; i < M; i++) {
        float* at = c + i * c_row;
        store(at, add ? load_wide(at) + sum[i] : sum[i]);
    }
}

// The same for 1 to TALL rows.
template <int AI, int AK, int M = TALL, typename... Rest>
static inline void multiply(int m, Rest... rest) {
    if constexpr (M > 1)
        if (m < M) return multiply<AI, AK, M - 1>(m, rest...);
    multiply_rows<M, AI, AK>(rest...);
}
