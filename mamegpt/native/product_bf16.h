// Matrix products of bfloat16, summed in float32: C (M x N) = A (M x K) B (K x N), or C += A B.
//
// A lies in rows, B in pairs (bfloat16.h), C in rows; M and N are multiples of 16, K of 32. A sum runs over k in order,
// so its bits depend on the numbers and the set of instructions alone: AMX, AVX512-BF16, or any other.
#pragma once

#include <algorithm>

#include "bfloat16.h"

#if defined(__AMX_BF16__)
#include "tiles_amx.h"
#elif defined(__AVX512BF16__)
#include "tiles_avx512.h"
#else
#include "tiles_portable.h"
#endif

// `tile<R, S>` is C of 16 R x 16 S numbers; rows of A and C are a_row and c_row apart, panels of B b_panel.
static inline void product(int M, int N, int K, const Bf16* a, long a_row, const Bf16* b, long b_panel, float* c,
                           long c_row, bool add) {
    for (int m = 0; m < M; m += 32)
        for (int n = 0; n < N; n += 32) {
            const Bf16 *of_a = a + m * a_row, *of_b = b + n / 16 * b_panel;
            float* at = c + m * c_row + n;
            bool two_down = M - m > 16, two_across = N - n > 16;
            if (two_down && two_across) tile<2, 2>(K, of_a, a_row, of_b, b_panel, at, c_row, add);
            else if (two_down) tile<2, 1>(K, of_a, a_row, of_b, b_panel, at, c_row, add);
            else if (two_across) tile<1, 2>(K, of_a, a_row, of_b, b_panel, at, c_row, add);
            else tile<1, 1>(K, of_a, a_row, of_b, b_panel, at, c_row, add);
        }
}
