// Sixteen pairs in an array. No run computes with these for their speed: they are what the instructions are tested by.
#pragma once

static inline Wide load_bf16(const Bf16* p) {
    float found[16];
    for (int i = 0; i < 16; i++) found[i] = to_float(p[i]);
    return load_wide(found);
}
static inline void store_bf16(Bf16* p, Wide a) {
    float numbers[16];
    store(numbers, a);
    for (int i = 0; i < 16; i++) p[i] = to_bf16(numbers[i]);
}

struct Pairs {
    Bf16 v[16][2];
};
static inline void store(Bf16* p, const Pairs& a) { std::memcpy(p, a.v, sizeof a.v); }
static inline Bf16 as_bf16(float x) { return to_bf16(x); }
static inline Bf16 as_bf16(Bf16 x) { return x; }
template <typename T>
static inline Pairs two_rows(const T* a, const T* b) {
    Pairs found;
    for (int i = 0; i < 16; i++) found.v[i][0] = as_bf16(a[i]), found.v[i][1] = as_bf16(b[i]);
    return found;
}
static inline Pairs two_rows(Wide a, Wide b) {
    float x[16], y[16];
    store(x, a), store(y, b);
    return two_rows(x, y);
}
static inline Pairs store_both(Bf16* to_a, Bf16* to_b, Wide a, Wide b) {
    store_bf16(to_a, a), store_bf16(to_b, b);
    return two_rows(a, b);
}
static inline Wide add_pairs(Wide sums, const Pairs& a) {
    float first[16], second[16];
    for (int i = 0; i < 16; i++) first[i] = to_float(a.v[i][0]), second[i] = to_float(a.v[i][1]);
    return sums + (load_wide(first) + load_wide(second));
}
template <typename T>
static inline Pairs one_row(const T* p) {  // numbers 0 and 1, 2 and 3, ... of 32
    Pairs found;
    for (int i = 0; i < 32; i++) found.v[i / 2][i % 2] = as_bf16(p[i]);
    return found;
}
static inline void transpose(Pairs r[16]) {
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < i; j++)
            for (int k = 0; k < 2; k++) {
                Bf16 kept = r[i].v[j][k];
                r[i].v[j][k] = r[j].v[i][k], r[j].v[i][k] = kept;
            }
}

static inline Wide exp_to_round(Wide x) { return exp(x); }
