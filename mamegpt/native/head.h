// What the head asks of its inputs and sums, in either type of number.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

// Whether float32 holds a sum of exponentials well; if not, its position is computed again, less its maximum. False for
// what is not a number.
static inline bool is_safe(float sum) { return sum > 1e-26f && sum < 1e30f; }

static inline bool all_below(const int64_t* ids, size_t n, int64_t end) {
    return std::all_of(ids, ids + n, [=](int64_t id) { return 0 <= id && id < end; });
}
