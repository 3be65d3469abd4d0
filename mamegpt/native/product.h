// Matrix products C (M x 16) = A (M x K) B (K x 16), or C += A B, with six rows of C in registers at a time.
//
// Matrices lie in panels, so that every loop reads memory from front to back:
//   by 16:  [N/16][K][16], a panel of 16 columns after another
//   by 6:   [M/6][K][6], a panel of six rows after another
// A sum runs over k in order, whatever the sizes and whoever computes it, so its bits depend on the numbers alone.
#pragma once

#include "vector.h"

constexpr int WIDE = 16;  // columns of a panel, two vectors
constexpr int TALL = 6;   // rows in registers: 6 x 2 sums, 2 vectors of B and one of A fit into 16 registers

// K = n_panels * depth. A (i, k) is a[panel of k][i * AI + k % depth * AK], panels a_panel apart; AI and AK are
// <1, TALL> if A lies by 6, <WIDE, 1> if it lies by 16. B is one panel by 16. Rows of C are c_row apart.
template <int M, int AI, int AK>
static inline void multiply_rows(int n_panels, int depth, const float* a, long a_panel, const float* b, float* c,
                                 long c_row, bool add) {
    Vec sum[M][2];
    for (int i = 0; i < M; i++)
        for (int j = 0; j < 2; j++) sum[i][j] = all(0.0f);
    for (int panel = 0; panel < n_panels; panel++, a += a_panel)
        for (int k = 0; k < depth; k++, b += WIDE) {
            Vec b0 = load(b), b1 = load(b + 8);
#pragma GCC unroll 6
            for (int i = 0; i < M; i++) {
                Vec x = all(a[i * AI + k * AK]);
                sum[i][0] = fma(x, b0, sum[i][0]);
                sum[i][1] = fma(x, b1, sum[i][1]);
            }
        }
    for (int i = 0; i < M; i++)
        for (int j = 0; j < 2; j++) {
            float* at = c + i * c_row + 8 * j;
            store(at, add ? load(at) + sum[i][j] : sum[i][j]);
        }
}

// The same for 1 to 6 rows.
template <int AI, int AK, typename... Rest>
static inline void multiply(int m, Rest... rest) {
    switch (m) {
        case 1: return multiply_rows<1, AI, AK>(rest...);
        case 2: return multiply_rows<2, AI, AK>(rest...);
        case 3: return multiply_rows<3, AI, AK>(rest...);
        case 4: return multiply_rows<4, AI, AK>(rest...);
        case 5: return multiply_rows<5, AI, AK>(rest...);
        default: return multiply_rows<TALL, AI, AK>(rest...);
    }
}
