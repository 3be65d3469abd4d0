// Eight numbers in two registers of NEON, which every 64-bit ARM processor has.
#pragma once

#include <arm_neon.h>

#include <cstdint>

struct Vec {
    float32x4_t low, high;
};
static inline Vec load(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4)}; }
static inline void store(float* p, Vec a) { vst1q_f32(p, a.low), vst1q_f32(p + 4, a.high); }
static inline Vec all(float x) { return {vdupq_n_f32(x), vdupq_n_f32(x)}; }
static inline Vec operator+(Vec a, Vec b) { return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)}; }
static inline Vec operator-(Vec a, Vec b) { return {vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)}; }
static inline Vec operator*(Vec a, Vec b) { return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)}; }
static inline Vec operator/(Vec a, Vec b) { return {vdivq_f32(a.low, b.low), vdivq_f32(a.high, b.high)}; }
static inline Vec fma(Vec a, Vec b, Vec c) {  // a * b + c
    return {vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)};
}
static inline Vec larger(Vec a, Vec b) { return {vmaxq_f32(a.low, b.low), vmaxq_f32(a.high, b.high)}; }  // NaN stays
static inline Vec at_least(Vec x, float low) { return larger(x, all(low)); }
static inline Vec at_most(Vec x, float high) {
    return {vminq_f32(x.low, vdupq_n_f32(high)), vminq_f32(x.high, vdupq_n_f32(high))};
}
static inline Vec nearest(Vec x) { return {vrndnq_f32(x.low), vrndnq_f32(x.high)}; }
// x * 2^n for whole numbers n, -126 to 127, where 2^n stays a normal number; a NaN in n counts as 0
static inline Vec times_power_of_2(Vec x, Vec n) {
    auto power = [](float32x4_t n) {
        int32x4_t exponent = vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23);
        return vreinterpretq_f32_s32(exponent);
    };
    return {vmulq_f32(x.low, power(n.low)), vmulq_f32(x.high, power(n.high))};
}
// a . b, n a multiple of 16, as long as 32 bits hold the sums
static inline int32_t dot(const int8_t* a, const int16_t* b, int n) {
    int32x4_t sums = vdupq_n_s32(0);
    for (int i = 0; i < n; i += 8) {
        int16x8_t wide = vmovl_s8(vld1_s8(a + i)), x = vld1q_s16(b + i);
        sums = vmlal_s16(vmlal_s16(sums, vget_low_s16(wide), vget_low_s16(x)), vget_high_s16(wide), vget_high_s16(x));
    }
    return vaddvq_s32(sums);
}
