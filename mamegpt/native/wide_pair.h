// Sixteen numbers as two `Vec`.
#pragma once

constexpr int TALL = 6;  // rows of a product in registers: 6 x 2 sums, two vectors of B and one of A fit into 16

struct Wide {
    Vec low, high;
};
static inline Wide load_wide(const float* p) { return {load(p), load(p + 8)}; }
static inline void store(float* p, Wide a) { store(p, a.low), store(p + 8, a.high); }
static inline Wide all_wide(float x) { return {all(x), all(x)}; }
static inline Vec lower(Wide a) { return a.low; }
static inline Vec upper(Wide a) { return a.high; }
static inline Wide operator+(Wide a, Wide b) { return {a.low + b.low, a.high + b.high}; }
static inline Wide operator-(Wide a, Wide b) { return {a.low - b.low, a.high - b.high}; }
static inline Wide operator*(Wide a, Wide b) { return {a.low * b.low, a.high * b.high}; }
static inline Wide operator/(Wide a, Wide b) { return {a.low / b.low, a.high / b.high}; }
static inline Wide fma(Wide a, Wide b, Wide c) { return {fma(a.low, b.low, c.low), fma(a.high, b.high, c.high)}; }
static inline Wide at_least(Wide x, float low) { return {at_least(x.low, low), at_least(x.high, low)}; }
static inline Wide at_most(Wide x, float high) { return {at_most(x.low, high), at_most(x.high, high)}; }
static inline Wide larger(Wide a, Wide b) { return {larger(a.low, b.low), larger(a.high, b.high)}; }
static inline Wide nearest(Wide x) { return {nearest(x.low), nearest(x.high)}; }
static inline Wide times_power_of_2(Wide x, Wide n) {
    return {times_power_of_2(x.low, n.low), times_power_of_2(x.high, n.high)};
}
