// Eight float32 numbers at once: `Vec`, in the registers of an instruction set, or, for any other processor, in an array.
// All other files are written in these terms, once.
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
