// Products of bfloat16 for any processor. No run computes with these for their speed: they are what the instructions
// are tested by.
#pragma once

struct Tiles {
    Tiles() {}  // nothing to prepare
};

template <int R, int S>
static inline void tile(int K, Left a, const Bf16* b, long b_panel, float* c, long c_row, bool add) {
    for (int m = 0; m < 16 * R; m++, c += c_row) {
        const Bf16* of_a = a.at + m / 16 * a.down + m % 16 * a.row;
        for (int j = 0; j < S; j++) {
            Wide sums = add ? load_wide(c + 16 * j) : all_wide(0.0f);
            for (int k = 0; k < K; k++) {
                const Bf16* row = b + j * b_panel + k / 2 * 32 + k % 2;
                float numbers[16];
                for (int i = 0; i < 16; i++) numbers[i] = to_float(row[2 * i]);
                sums = fma(all_wide(to_float(of_a[k / 32 * a.along + k % 32])), load_wide(numbers), sums);
            }
            store(c + 16 * j, sums);
        }
    }
}
