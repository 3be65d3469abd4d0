// Matrix products of bfloat16, summed in float32: C (M x N) = A (M x K) B (K x N), or C += A B.
//
// A lies in rows, or in tiles of 16 x 32, [M/16][K/32][16][32], each of which is one piece of memory; B in pairs
// (bfloat16.h), C in rows. M and N are multiples of 16, K of 32. A sum runs over k in order, so its bits depend on the
// numbers and the set of instructions alone: AMX, AVX512-BF16, or any other.
#pragma once

#include <algorithm>

#include "bfloat16.h"

struct Left {  // A; how far apart are its rows, and its blocks of 16 rows and of 32 columns
    const Bf16* at;
    long row, down, along;

    Left from(int m) const { return {at + m / 16 * down, row, down, along}; }  // from row m, a multiple of 16, on
};
static inline Left in_rows(const Bf16* a, long row) { return {a, row, 16 * row, 32}; }
static inline Left in_tiles(const Bf16* a, long K) { return {a, 32, 16 * K, 512}; }
static inline size_t place_in_tiles(int m, int k, int K) {  // of a number
    return size_t(m / 16) * 16 * K + size_t(k / 32) * 512 + m % 16 * 32 + k % 32;
}

#if defined(__AMX_BF16__)
#include "tiles_amx.h"
#elif defined(__AVX512BF16__)
#include "tiles_avx512.h"
#else
#include "tiles_portable.h"
#endif

// `tile<R, S>` is C of 16 R x 16 S numbers; rows of C are c_row apart, panels of B b_panel.
static inline void product(int M, int N, int K, Left a, const Bf16* b, long b_panel, float* c, long c_row, bool add) {
    for (int m = 0; m < M; m += 32)
        for (int n = 0; n < N; n += 32) {
            const Left of_a = a.from(m);
            const Bf16* of_b = b + n / 16 * b_panel;
            float* at = c + m * c_row + n;
            bool two_down = M - m > 16, two_across = N - n > 16;
            if (two_down && two_across) tile<2, 2>(K, of_a, of_b, b_panel, at, c_row, add);
            else if (two_down) tile<2, 1>(K, of_a, of_b, b_panel, at, c_row, add);
            else if (two_across) tile<1, 2>(K, of_a, of_b, b_panel, at, c_row, add);
            else tile<1, 1>(K, of_a, of_b, b_panel, at, c_row, add);
        }
}
