// One step of Muon (Jordan et al. 2024), with products in bfloat16: `Muon` of training/muon.py.
//
// A matrix is the work of one thread, in whose cache it stays from its gradient to its update.
#include <cmath>

#include "export.h"
#include "product_bf16.h"
#include "room.h"
#include "team.h"

namespace {

struct Settings {
    float lr, momentum, weight_decay, a, b, c, eps;
    int32_t n_iterations;
};

// A matrix (rows, columns), padded to R x S, multiples of 32; X is it, or its transpose (M x N), no taller than wide.
struct Shape {
    int rows, columns;

    int R() const { return round_up(rows, 32); }
    int S() const { return round_up(columns, 32); }
    bool is_tall() const { return rows > columns; }
    int M() const { return is_tall() ? S() : R(); }
    int N() const { return is_tall() ? R() : S(); }
};

struct Scratch {
    float *wide, *gram;                 // (M, N), (M, M)
    Bf16 *x, *other_way, *x_in_pairs;   // (M, N), (N, M), and both in pairs
    Bf16 *gram_rows, *gram_in_pairs;    // (M, M)

    Scratch(const Shape& s, Room& room) {
        const size_t both = size_t(s.M()) * s.N(), square = size_t(s.M()) * s.M();
        room.take(wide, both), room.take(gram, square);
        room.take(x, both), room.take(other_way, both), room.take(x_in_pairs, both);
        room.take(gram_rows, square), room.take(gram_in_pairs, square);
    }
};

// momentum += (1 - beta) (gradient - momentum); then what is to be orthogonalized (Nesterov), with zeros around it:
// gradient + beta (momentum - gradient). Returns its norm.
float average(const Shape& s, const Settings& to, const float* gradient, float* momentum, float* out) {
    const int n = s.R() * s.S();
    std::fill_n(out, n, 0.0f);
    float* row = out;
    for (int r = 0; r < s.rows; r++, gradient += s.columns, momentum += s.columns, row += s.S())
        for (int i = 0; i < s.columns; i++) {
            momentum[i] += (1 - to.momentum) * (gradient[i] - momentum[i]);
            row[i] = gradient[i] + to.momentum * (momentum[i] - gradient[i]);
        }
    Wide squares = all_wide(0.0f);
    for (int i = 0; i < n; i += 16) squares = fma(load_wide(out + i), load_wide(out + i), squares);
    return std::sqrt(sum(squares));
}

// X <- a X + (b A + c A A) X with A = X X^T, by Newton-Schulz iteration. Both terms have A as it was rounded: its error
// is nearly the same in them, with opposite signs.
void orthogonalize(const Shape& s, const Settings& to, const Scratch& m) {
    const int M = s.M(), N = s.N();
    const Wide a = all_wide(to.a), b = all_wide(to.b), c = all_wide(to.c);
    for (int i = 0; i < to.n_iterations; i++) {
        transposed_in_pairs(N, M, m.x, N, m.x_in_pairs, N * 16L);
        product(M, M, N, in_rows(m.x, N), m.x_in_pairs, N * 16L, m.gram, M, false);
        round_to(M * M, m.gram, m.gram_rows);
        in_pairs(M, M, m.gram_rows, M, m.gram_in_pairs, M * 16L);
        product(M, M, M, in_rows(m.gram_rows, M), m.gram_in_pairs, M * 16L, m.wide, M, false);
        for (int k = 0; k < M * M; k += 16)
            store_bf16(m.gram_rows + k, fma(c, load_wide(m.wide + k), b * load_bf16(m.gram_rows + k)));
        in_pairs(M, N, m.x, N, m.x_in_pairs, M * 16L);
        product(M, N, M, in_rows(m.gram_rows, M), m.x_in_pairs, M * 16L, m.wide, N, false);
        for (int k = 0; k < M * N; k += 16) store_bf16(m.x + k, fma(a, load_bf16(m.x + k), load_wide(m.wide + k)));
    }
}

void update(const Shape& s, const Settings& to, float* weight, const float* gradient, float* momentum,
            const Scratch& m) {
    const float norm = average(s, to, gradient, momentum, m.wide);
    const Wide scale = all_wide(1 / std::max(norm, to.eps));
    Bf16* first = s.is_tall() ? m.other_way : m.x;
    for (int i = 0; i < s.R() * s.S(); i += 16) store_bf16(first + i, load_wide(m.wide + i) * scale);
    if (s.is_tall()) transposed(s.R(), s.S(), m.other_way, s.S(), m.x, s.R());
    orthogonalize(s, to, m);
    if (s.is_tall()) transposed(s.S(), s.R(), m.x, s.R(), m.other_way, s.S());
    const float kept = 1 - to.lr * to.weight_decay, rate = to.lr * std::sqrt(std::max(1.0f, float(s.rows) / s.columns));
    for (int r = 0; r < s.rows; r++, weight += s.columns, first += s.S())
        for (int i = 0; i < s.columns; i++) weight[i] = kept * weight[i] - rate * to_float(first[i]);
}

}  // namespace

// How many bytes of memory a step needs, for a thread and a matrix (rows, columns).
EXPORTED int64_t mame_muon_memory(int32_t rows, int32_t columns) {
    Room room(nullptr);
    Scratch(Shape{rows, columns}, room);
    return int64_t(room.bytes());
}

// Update n matrices, (rows, columns) of `shapes`, and their momentum. `memory` has `memory_of_thread` bytes a thread, as
// many as the largest matrix needs, and begins on a line of the cache.
EXPORTED void mame_muon(int32_t n, const int32_t* shapes, const float* settings, int32_t n_iterations,
                        float* const* weights, const float* const* gradients, float* const* momenta, void* memory,
                        int64_t memory_of_thread, int32_t n_threads) {
    const Settings to{settings[0], settings[1], settings[2], settings[3], settings[4], settings[5], settings[6],
                      n_iterations};
    Team::run(n_threads, [&](Team& team, int me) {
        Tiles tiles;
        team.share(n, [&](int i) {
            const Shape shape{shapes[2 * i], shapes[2 * i + 1]};
            Room room(static_cast<char*>(memory) + memory_of_thread * me);
            update(shape, to, weights[i], gradients[i], momenta[i], Scratch(shape, room));
        });
    });
}
