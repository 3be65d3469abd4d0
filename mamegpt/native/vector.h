// Eight float32 numbers at once: in one AVX2 register, or, for any other processor, in an array whose loops the
// compiler turns into what it has. All other files are written in these terms, once.
//
// Every operation rounds as written (built with -ffp-contract=off), so results depend on nothing but the numbers.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

struct Vec {
    __m256 v;
};
static inline Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
static inline void store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
static inline Vec all(float x) { return {_mm256_set1_ps(x)}; }
static inline Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
static inline Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
static inline Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
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

#else

struct Vec {
    float v[8];
};
template <typename F>
static inline Vec each(F f) {
    Vec out;
    for (int i = 0; i < 8; i++) out.v[i] = f(i);
    return out;
}
static inline Vec load(const float* p) { return each([=](int i) { return p[i]; }); }
static inline void store(float* p, Vec a) { std::memcpy(p, a.v, sizeof a.v); }
static inline Vec all(float x) { return each([=](int) { return x; }); }
static inline Vec operator+(const Vec& a, const Vec& b) { return each([&](int i) { return a.v[i] + b.v[i]; }); }
static inline Vec operator-(const Vec& a, const Vec& b) { return each([&](int i) { return a.v[i] - b.v[i]; }); }
static inline Vec operator*(const Vec& a, const Vec& b) { return each([&](int i) { return a.v[i] * b.v[i]; }); }
static inline Vec fma(const Vec& a, const Vec& b, const Vec& c) { return a * b + c; }
static inline Vec at_least(const Vec& x, float low) { return each([&](int i) { return x.v[i] < low ? low : x.v[i]; }); }
static inline Vec at_most(const Vec& x, float high) { return each([&](int i) { return x.v[i] > high ? high : x.v[i]; }); }
static inline Vec larger(const Vec& a, const Vec& b) { return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; }); }
static inline Vec nearest(const Vec& x) {  // below 2^22 in size: the sum has no room for the digits behind the point
    const float big = 12582912.0f;
    return each([&](int i) { return (x.v[i] + big) - big; });
}
static inline Vec times_power_of_2(const Vec& x, const Vec& n) {
    return each([&](int i) {
        float power;
        int32_t bits = (n.v[i] == n.v[i] ? int32_t(n.v[i]) + 127 : 127) << 23;  // a NaN has no whole number
        std::memcpy(&power, &bits, 4);
        return x.v[i] * power;
    });
}

#endif

static inline float sum(Vec a) {
    float v[8];
    store(v, a);
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}
static inline float largest(Vec a) {
    float v[8], found;
    store(v, a);
    found = v[0];
    for (int i = 1; i < 8; i++) found = v[i] > found ? v[i] : found;
    return found;
}

// e^x to 1e-7 of itself, between e^-87 and e^88 (smaller and larger ones count as these): with n = x / ln 2, rounded,
// 2^n times a polynomial of the rest, between -ln(2)/2 and ln(2)/2. The coefficients are those of Moshier's Cephes.
static inline Vec exp(Vec x) {
    x = at_most(at_least(x, -87.0f), 88.0f);
    Vec n = nearest(x * all(1.44269504f));
    Vec r = fma(n, all(-0.693359375f), x);
    r = fma(n, all(2.12194440e-4f), r);
    Vec p = fma(all(1.9875691500e-4f), r, all(1.3981999507e-3f));
    p = fma(p, r, all(8.3334519073e-3f));
    p = fma(p, r, all(4.1665795894e-2f));
    p = fma(p, r, all(1.6666665459e-1f));
    p = fma(p, r, all(5.0000001201e-1f));
    return times_power_of_2(fma(p, r * r, r) + all(1.0f), n);
}
