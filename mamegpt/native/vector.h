// Eight float32 numbers at once, `Vec`, in the registers of an instruction set, or, for any other processor, in an array;
// and sixteen, `Wide`, in one register or as two `Vec`. All other files are written in these terms, once.
//
// Every operation rounds as written (built with -ffp-contract=off), so results depend on nothing but the numbers.
#pragma once

#if defined(__AVX2__) && defined(__FMA__)
#include "vector_avx2.h"
#elif defined(NEON)
#include "vector_neon.h"
#else
#include "vector_portable.h"
#endif

#if defined(__AVX512F__)
#include "wide_avx512.h"
#else
#include "wide_pair.h"
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

static inline float sum(Wide a) { return sum(lower(a) + upper(a)); }
static inline float largest(Wide a) { return largest(larger(lower(a), upper(a))); }

static inline void all(float x, Vec& out) { out = all(x); }
static inline void all(float x, Wide& out) { out = all_wide(x); }

// e^x of a Vec or Wide, to 1e-7 of itself, between e^-87 and e^88 (smaller and larger ones count as these): with
// n = x / ln 2, rounded, 2^n times a polynomial of the rest, between -ln(2)/2 and ln(2)/2. The coefficients are those of
// Moshier's Cephes.
template <typename V>
static inline V exp(V x) {
    auto constant = [](float number) {
        V out;
        all(number, out);
        return out;
    };
    x = at_most(at_least(x, -87.0f), 88.0f);
    V n = nearest(x * constant(1.44269504f));
    V r = fma(n, constant(-0.693359375f), x);
    r = fma(n, constant(2.12194440e-4f), r);
    V p = fma(constant(1.9875691500e-4f), r, constant(1.3981999507e-3f));
    p = fma(p, r, constant(8.3334519073e-3f));
    p = fma(p, r, constant(4.1665795894e-2f));
    p = fma(p, r, constant(1.6666665459e-1f));
    p = fma(p, r, constant(5.0000001201e-1f));
    return times_power_of_2(fma(p, r * r, r) + constant(1.0f), n);
}
