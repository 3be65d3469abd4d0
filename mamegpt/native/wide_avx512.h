// Sixteen numbers in one register of AVX-512; each operation gives the bits of the same one on two `Vec`.
#pragma once

constexpr int TALL = 12;  // rows of a product in registers: two sums of 4 cycles at a time need 8, and 32 hold 12 and more

struct Wide {
    __m512 v;
};
static inline Wide load_wide(const float* p) { return {_mm512_loadu_ps(p)}; }
static inline void store(float* p, Wide a) { _mm512_storeu_ps(p, a.v); }
static inline Wide all_wide(float x) { return {_mm512_set1_ps(x)}; }
static inline Vec lower(Wide a) { return {_mm512_castps512_ps256(a.v)}; }
static inline Vec upper(Wide a) { return {_mm512_extractf32x8_ps(a.v, 1)}; }
static inline Wide operator+(Wide a, Wide b) { return {_mm512_add_ps(a.v, b.v)}; }
static inline Wide operator-(Wide a, Wide b) { return {_mm512_sub_ps(a.v, b.v)}; }
static inline Wide operator*(Wide a, Wide b) { return {_mm512_mul_ps(a.v, b.v)}; }
static inline Wide operator/(Wide a, Wide b) { return {_mm512_div_ps(a.v, b.v)}; }
static inline Wide fma(Wide a, Wide b, Wide c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
static inline Wide at_least(Wide x, float low) { return {_mm512_max_ps(_mm512_set1_ps(low), x.v)}; }
static inline Wide at_most(Wide x, float high) { return {_mm512_min_ps(_mm512_set1_ps(high), x.v)}; }
static inline Wide larger(Wide a, Wide b) { return {_mm512_max_ps(a.v, b.v)}; }
static inline Wide nearest(Wide x) {
    return {_mm512_roundscale_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
static inline Wide times_power_of_2(Wide x, Wide n) { return {_mm512_scalef_ps(x.v, n.v)}; }
