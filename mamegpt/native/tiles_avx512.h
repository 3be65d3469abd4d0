// Products by AVX512-BF16: eight rows of S registers at a time.
#pragma once

struct Tiles {
    Tiles() {}  // nothing to prepare
};

template <int R, int S>
static inline void tile(int K, Left a, const Bf16* b, long b_panel, float* c, long c_row, bool add) {
    constexpr int ROWS = 8;
    for (int m = 0; m < 16 * R; m += ROWS, c += ROWS * c_row) {
        const Bf16* rows = a.at + m / 16 * a.down + m % 16 * a.row;
        __m512 sums[ROWS][S];
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < S; j++)
                sums[i][j] = add ? _mm512_loadu_ps(c + i * c_row + 16 * j) : _mm512_setzero_ps();
        for (int k = 0; k < K; k += 2) {
            __m512bh columns[S];
            for (int j = 0; j < S; j++)
                columns[j] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + j * b_panel + k * 16));
#pragma GCC unroll 8
            for (int i = 0; i < ROWS; i++) {
                int32_t pair;
                std::memcpy(&pair, rows + i * a.row + k / 32 * a.along + k % 32, sizeof pair);
                __m512bh row = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
                for (int j = 0; j < S; j++) sums[i][j] = _mm512_dpbf16_ps(sums[i][j], row, columns[j]);
            }
        }
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < S; j++) _mm512_storeu_ps(c + i * c_row + 16 * j, sums[i][j]);
    }
}
