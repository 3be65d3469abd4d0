// Sixteen pairs in one register of AVX-512.
#pragma once

static inline Wide load_bf16(const Bf16* p) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
static inline __m256i rounded(Wide a) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(a.v)); }
static inline void store_bf16(Bf16* p, Wide a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), rounded(a)); }

struct Pairs {
    __m512i v;
};
static inline void store(Bf16* p, Pairs a) { _mm512_storeu_si512(p, a.v); }
static inline Pairs joined(__m256i low, __m256i high) {
    return {_mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16))};
}
static inline Pairs turned(__m512bh rows) {  // numbers 0 and 16, 1 and 17, ... of 32
    alignas(64) static const uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                   8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return {_mm512_permutexvar_epi16(_mm512_load_si512(order), reinterpret_cast<__m512i>(rows))};
}
static inline Pairs two_rows(Wide a, Wide b) { return turned(_mm512_cvtne2ps_pbh(b.v, a.v)); }
static inline Pairs store_both(Bf16* to_a, Bf16* to_b, Wide a, Wide b) {
    const __m512bh rows = _mm512_cvtne2ps_pbh(b.v, a.v);
    const __m512i both = reinterpret_cast<__m512i>(rows);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to_a), _mm512_castsi512_si256(both));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to_b), _mm512_extracti64x4_epi64(both, 1));
    return turned(rows);
}
static inline Wide add_pairs(Wide sums, Pairs a) {
    const __m512i ones = _mm512_set1_epi16(0x3f80);
    return {_mm512_dpbf16_ps(sums.v, reinterpret_cast<__m512bh>(a.v), reinterpret_cast<__m512bh>(ones))};
}
static inline Pairs two_rows(const float* a, const float* b) { return two_rows(load_wide(a), load_wide(b)); }
static inline Pairs two_rows(const Bf16* a, const Bf16* b) {
    return joined(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(a)),
                  _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b)));
}
static inline Pairs one_row(const float* p) {  // numbers 0 and 1, 2 and 3, ... of 32
    return {reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(load_wide(p + 16).v, load_wide(p).v))};
}
static inline Pairs one_row(const Bf16* p) { return {_mm512_loadu_si512(p)}; }

// Transpose 16 x 16 pairs: within four lanes of 128 bits, then the lanes.
static inline void transpose(Pairs r[16]) {
    __m512i t[16];
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i].v, r[2 * i + 1].v);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i].v, r[2 * i + 1].v);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i].v = _mm512_unpacklo_epi64(t[i], t[i + 2]), r[i + 1].v = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2].v = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]), r[i + 3].v = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i].v, r[4 + i].v, 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(r[8 + i].v, r[12 + i].v, 0x88);
        t[8 + i] = _mm512_shuffle_i32x4(r[i].v, r[4 + i].v, 0xdd);
        t[12 + i] = _mm512_shuffle_i32x4(r[8 + i].v, r[12 + i].v, 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i].v = _mm512_shuffle_i32x4(t[i], t[4 + i], 0x88), r[8 + i].v = _mm512_shuffle_i32x4(t[i], t[4 + i], 0xdd);
        r[4 + i].v = _mm512_shuffle_i32x4(t[8 + i], t[12 + i], 0x88);
        r[12 + i].v = _mm512_shuffle_i32x4(t[8 + i], t[12 + i], 0xdd);
    }
}

// With t = x / ln 2: 2^floor(t) times a polynomial of the rest, between 0 and 1, fitted to the least relative error.
static inline Wide exp_to_round(Wide x) {
    const __m512 t = _mm512_mul_ps(x.v, _mm512_set1_ps(1.44269504f));
    const __m512 r = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(0.01353416f), r, _mm512_set1_ps(0.05201147f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.24144275f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.69300384f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.00000259f));
    return {_mm512_scalef_ps(p, t)};
}
