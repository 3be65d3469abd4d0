// Eight numbers in one register of AVX2.
#pragma once

#include <immintrin.h>

#include <cstdint>

struct Vec {
    __m256 v;
};
static inline Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
static inline void store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
static inline Vec all(float x) { return {_mm256_set1_ps(x)}; }
static inline Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
static inline Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
static inline Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
static inline Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
static inline Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }  // a * b + c
// The second operand of the instruction is the result if one is not a number, so a NaN in x stays one.
static inline Vec at_least(Vec x, float low) { return {_mm256_max_ps(_mm256_set1_ps(low), x.v)}; }
static inline Vec at_most(Vec x, float high) { return {_mm256_min_ps(_mm256_set1_ps(high), x.v)}; }
static inline Vec larger(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
static inline Vec nearest(Vec x) { return {_mm256_round_ps(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
// x * 2^n for whole numbers n, -126 to 127, where 2^n stays a normal number
static inline Vec times_power_of_2(Vec x, Vec n) {
    __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127)), 23);
    return {_mm256_mul_ps(x.v, _mm256_castsi256_ps(exponent))};
}
// a . b, n a multiple of 16, as long as 32 bits hold the sums
static inline int32_t dot(const int8_t* a, const int16_t* b, int n) {
    __m256i sums = _mm256_setzero_si256();
    for (int i = 0; i < n; i += 16) {
        __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a + i)));
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(wide, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + i))));
    }
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}
