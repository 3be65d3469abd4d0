// Eight numbers in an array, whose loops the compiler turns into what the processor has.
#pragma once

#include <cstdint>
#include <cstring>

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
static inline Vec operator/(const Vec& a, const Vec& b) { return each([&](int i) { return a.v[i] / b.v[i]; }); }
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
// a . b, as long as 32 bits hold the sum
static inline int32_t dot(const int8_t* a, const int16_t* b, int n) {
    int32_t found = 0;
    for (int i = 0; i < n; i++) found += int32_t(a[i]) * b[i];
    return found;
}
