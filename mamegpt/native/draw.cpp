// Continuations drawn from n-gram counts: `NgramTargets.draw` of training/ngram_targets.py, with the same results.
//
// Nearly all of its time is waiting for places of a long sorted array, so many searches go side by side.
#include <algorithm>
#include <cstdint>

#include "export.h"
#include "team.h"

namespace {

constexpr int TOGETHER = 32;  // positions of one unit of work

struct Counts {
    const int64_t* keys;  // n-grams, sorted
    int64_t n;

    // at[i] = how many keys are below numbers[i]
    void search(int n_numbers, const int64_t* numbers, int64_t* at) const {
        std::fill_n(at, n_numbers, int64_t(0));
        for (int64_t left = n; left > 1; left -= left / 2)
            for (int i = 0; i < n_numbers; i++) at[i] += keys[at[i] + left / 2 - 1] < numbers[i] ? left / 2 : 0;
        for (int i = 0; i < n_numbers; i++) at[i] += keys[at[i]] < numbers[i];
    }
};

struct Draw {
    int n_levels, T, K;
    int64_t vocab_size;
    double discount;
    const Counts* levels;      // of 1, 2, ... tokens
    const int64_t* ids;        // (B, T)
    const double* random;      // (n_levels, B, T, 1 + K)
    int64_t n_positions;       // B T
    int64_t* drawn;            // (B, T, K)

    // The last n tokens at a position as one number, times the size of the vocabulary.
    int64_t context(int64_t position, int n) const {
        int64_t number = 0;
        for (int i = n - 1; i >= 0; i--) number = number * vocab_size + ids[position - i];
        return number * vocab_size;
    }

    // Positions `first` to `last` - 1. What a context of n - 1 tokens leaves open is drawn from a shorter one.
    void positions(int64_t first, int64_t last) const {
        std::fill(drawn + first * K, drawn + last * K, int64_t(-1));
        for (int n = n_levels; n > 0; n--) {
            const Counts& level = levels[n - 1];
            int64_t numbers[2 * TOGETHER], at[2 * TOGETHER], of[TOGETHER];
            int count = 0;
            for (int64_t position = first; position < last; position++)
                if (position % T >= n - 2) {
                    numbers[2 * count] = context(position, n - 1);
                    numbers[2 * count + 1] = numbers[2 * count] + vocab_size;
                    of[count++] = position;
                }
            level.search(2 * count, numbers, at);
            for (int i = 0; i < count; i++) {
                const double* chances = random + ((n - 1) * n_positions + of[i]) * (1 + K);
                take(level, n > 1, at[2 * i], at[2 * i + 1], chances, drawn + of[i] * K);
            }
        }
    }

    // Places begin to end - 1 have the context. They are taken evenly, beginning at a random one.
    void take(const Counts& level, bool discounts, int64_t begin, int64_t end, const double* chances,
              int64_t* drawn) const {
        if (discounts && end - begin < 2) return;  // one place, which is the one that asks
        const auto n_open = double(std::count(drawn, drawn + K, int64_t(-1)));
        double before = 0;
        for (int i = 0; i < K; i++) {
            if (drawn[i] >= 0) continue;
            const double share = (before++ + chances[0]) / n_open;
            const int64_t place = std::min(begin + int64_t(share * double(end - begin)), level.n - 1);
            const int64_t found = level.keys[place];
            const bool is_first = place == 0 || level.keys[place - 1] != found;
            if (!(discounts && is_first && chances[1 + i] < discount)) drawn[i] = found % vocab_size;
        }
    }
};

}  // namespace

// Fills drawn (B, T, K) for ids (B, T) from sorted n-grams `keys[i]` (n_keys[i],) of i + 1 tokens, at least one of each,
// and random numbers from 0 to 1 (n_levels, B, T, 1 + K).
EXPORTED void mame_draw(int32_t n_levels, const int64_t* const* keys, const int64_t* n_keys, int64_t vocab_size,
                        double discount, int32_t B, int32_t T, int32_t K, const int64_t* ids, const double* random,
                        int64_t* drawn, int32_t n_threads) {
    std::vector<Counts> levels;
    for (int i = 0; i < n_levels; i++) levels.push_back({keys[i], n_keys[i]});
    const int64_t n = int64_t(B) * T;
    const Draw draw{n_levels, T, K, vocab_size, discount, levels.data(), ids, random, n, drawn};
    Team::run(n_threads, [&](Team& team, int) {
        team.share(int((n + TOGETHER - 1) / TOGETHER),
                   [&](int unit) { draw.positions(int64_t(unit) * TOGETHER, std::min(n, (unit + int64_t(1)) * TOGETHER)); });
    });
}
