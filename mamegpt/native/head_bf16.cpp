// The output head and its cross-entropy, forward and backward, with products in bfloat16:
// `mamegpt.models.loss.linear_cross_entropy`.
//
// N positions, V tokens of the vocabulary, C hidden size (a multiple of 32), K soft targets of a position. Logits are
// computed transposed, tokens down and positions across, so that sums over tokens are sums of registers. For a block of
// positions, with E = exp(W h^T) and its sums S over tokens:
//
//     loss = log S - h W[target]      dh^T = W^T E / S - W^T [targets]      dW += (E - S [targets]) (h / S)
//
// Three products, each logit computed once, and no maximum is looked for as long as the sums are far from the ends of
// float32. A unit of work is some positions of a block for all but dW, and some tokens for that.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "export.h"
#include "head.h"
#include "product_bf16.h"
#include "room.h"
#include "team.h"

namespace {

constexpr int ROWS = 256;                       // positions of a unit of work
constexpr int UNITS = 1;                        // such units of a block, for each thread,
constexpr int MOST_ROWS = 2048;                 // and at most this many positions of a block
constexpr int GROUP = 64;                       // positions whose E of a chunk of tokens stays in the first cache
constexpr int CHUNK = 256;                      // tokens whose E is multiplied before those of the next are computed
constexpr int TOKENS = 32;                      // tokens of a unit of work
constexpr size_t E_BYTES = size_t(1) << 27;     // more than this, and a block has fewer positions

struct Head {
    int N, V, C, K, tokens, n_rows;  // tokens: V rounded up to CHUNK; n_rows: positions of a block
    const float *h, *w;              // (N, C), (V, C)
    const int64_t *targets, *soft;   // (N,), (N, K)
    float true_share;
    double* losses;                        // (N + 1,)
    float *dh, *dw;                        // (N, C), (V, C); null: only the loss is wanted
    Bf16 *w_rows, *w_across;               // in tiles: (tokens, C), and by chunks of tokens (C, CHUNK)
    Bf16 *e, *scaled;                      // (tokens, n_rows) in tiles, h / S in pairs of positions
    struct Scratch {                       // of each thread
        Bf16 *rows, *h_pairs, *e_pairs;    // (ROWS, C), and by 16 positions in pairs; E of a group and a chunk, as these
        float *logits, *dh_across;         // (TOKENS, GROUP), by groups of positions (C, GROUP)
        float *sums, *of_rounded, *shift;  // (ROWS,), of E, and of E as it is kept
    };

    size_t lay_out(void* memory, int n_threads, Scratch* scratch) {
        Room room(memory);
        size_t weight = size_t(tokens) * C, width = size_t(C);
        room.take(w_rows, weight), room.take(w_across, dw ? weight : 0);
        room.take(e, dw ? size_t(tokens) * n_rows : 0), room.take(scaled, dw ? n_rows * width : 0);
        for (int i = 0; i < n_threads; i++) {
            Scratch none, &m = scratch ? scratch[i] : none;
            room.take(m.rows, ROWS * width), room.take(m.h_pairs, ROWS * width), room.take(m.e_pairs, GROUP * CHUNK);
            room.take(m.logits, TOKENS * GROUP), room.take(m.dh_across, dw ? ROWS * width : 0);
            room.take(m.sums, ROWS), room.take(m.of_rounded, ROWS), room.take(m.shift, ROWS);
        }
        return room.bytes();
    }
};

using Scratch = Head::Scratch;

// W and, by chunks of tokens, W^T; beyond the last token there are zeros.
void pack_weight(const Head& t, int v) {
    Bf16 square[TOKENS * 32], *across = t.w_across + size_t(v / CHUNK) * CHUNK * t.C;
    for (int c = 0; c < t.C; c += 32) {
        for (int i = 0; i < TOKENS; i++) {
            if (v + i < t.V) round_to(32, t.w + size_t(v + i) * t.C + c, square + i * 32);
            else std::fill_n(square + i * 32, 32, Bf16(0));
        }
        for (int i = 0; i < TOKENS; i += 16) std::copy_n(square + i * 32, 512, t.w_rows + place_in_tiles(v + i, c, t.C));
        for (int i = 0; i < 32 && t.dw; i += 16)
            transposed(TOKENS, 16, square + i, 32, across + place_in_tiles(c + i, v % CHUNK, CHUNK), 32);
    }
}

// n positions from `first` on; up to the next multiple of 32 there are zeros.
void pack_hidden(const Head& t, const Scratch& m, int first, int n) {
    for (int r = 0; r < round_up(n, 32); r++) {
        if (r < n) round_to(t.C, t.h + size_t(first + r) * t.C, m.rows + size_t(r) * t.C);
        else std::fill_n(m.rows + size_t(r) * t.C, t.C, Bf16(0));
    }
    transposed_in_pairs(t.C, round_up(n, 32), m.rows, t.C, m.h_pairs, long(t.C) * 16);
}

// The logits of tokens from v on, for n positions of a group from `first` on.
void logits(const Head& t, const Scratch& m, int first, int n, int v) {
    product(TOKENS, n, t.C, in_tiles(t.w_rows + size_t(v) * t.C, t.C), m.h_pairs + size_t(first) * t.C, long(t.C) * 16,
            m.logits, GROUP, false);
}

// E = exp(logits - shift) of tokens from v on, in tiles and in pairs, which begin at `chunk`; and its sums. Gradients
// are of the rounded E and its own sums: where one token has all the probability, they are zero, and not a rounding.
void exponentials(const Head& t, const Scratch& m, int at, int first, int n, int v, int chunk) {
    const int n_tokens = std::min(TOKENS, t.V - v);
    const bool stores = t.dw;
    for (int r = 0; r < n; r += 16) {
        const float* x = m.logits + r;
        const int of_unit = first + r;
        Bf16* pairs = m.e_pairs + r * CHUNK + (v - chunk) * 16;
        Wide shift = load_wide(m.shift + of_unit), sums = load_wide(m.sums + of_unit);
        Wide of_rounded = load_wide(m.of_rounded + of_unit);
        for (int i = 0; i < TOKENS; i += 2, x += 2 * GROUP, pairs += 32) {
            Wide a = i < n_tokens ? exp_to_round(load_wide(x) - shift) : all_wide(0.0f);
            Wide b = i + 1 < n_tokens ? exp_to_round(load_wide(x + GROUP) - shift) : all_wide(0.0f);
            sums = sums + (a + b);
            if (!stores) continue;
            Bf16* e = t.e + place_in_tiles(v + i, at + of_unit, t.n_rows);
            const Pairs both = store_both(e, e + 32, a, b);
            store(pairs, both);
            of_rounded = add_pairs(of_rounded, both);
        }
        store(m.sums + of_unit, sums), store(m.of_rounded + of_unit, of_rounded);
    }
}

// E of all tokens, its sums, and dh^T = W^T E; n positions, a multiple of 32, `at` in the block.
void exponentials(const Head& t, const Scratch& m, int at, int n) {
    const int end = round_up(t.V, TOKENS);
    std::fill_n(m.sums, n, 0.0f), std::fill_n(m.of_rounded, n, 0.0f);
    for (int chunk = 0; chunk < end; chunk += CHUNK)
        for (int first = 0; first < n; first += GROUP) {
            const int here = std::min(GROUP, n - first), depth = std::min(CHUNK, end - chunk);
            for (int v = chunk; v < chunk + depth; v += TOKENS)
                logits(t, m, first, here, v), exponentials(t, m, at, first, here, v, chunk);
            if (t.dw)
                product(t.C, here, depth, in_tiles(t.w_across + size_t(chunk) * t.C, CHUNK), m.e_pairs, CHUNK * 16,
                        m.dh_across + first * t.C, GROUP, chunk > 0);
        }
}

// The same; positions that float32 cannot hold are shifted by their largest logit.
void probabilities(const Head& t, const Scratch& m, int at, int n) {
    std::fill_n(m.shift, n, 0.0f);
    exponentials(t, m, at, n);
    if (std::all_of(m.sums, m.sums + n, is_safe)) return;
    float most[ROWS];
    std::fill(most, most + ROWS, -INFINITY);
    for (int v = 0; v < t.V; v += TOKENS)
        for (int first = 0; first < n; first += GROUP) {
            const int here = std::min(GROUP, n - first);
            logits(t, m, first, here, v);
            for (int i = 0; i < std::min(TOKENS, t.V - v); i++)
                for (int r = 0; r < here; r++) most[first + r] = std::max(most[first + r], m.logits[i * GROUP + r]);
        }
    for (int r = 0; r < n; r++)
        if (!is_safe(m.sums[r])) m.shift[r] = most[r];
    exponentials(t, m, at, n);
}

// loss = log S + shift - logit of the target; then E becomes S times the gradient of the logits, and dh^T / S dh.
void subtract_targets(const Head& t, const Scratch& m, int first, int at, int r) {
    const size_t row = size_t(first + at + r);
    const Bf16* h = m.rows + size_t(r) * t.C;
    float* dh = t.dh + row * t.C;
    if (t.dw)
        for (int c = 0; c < t.C; c++) dh[c] = m.dh_across[r / GROUP * GROUP * t.C + c * GROUP + r % GROUP] / m.of_rounded[r];
    auto weight = [&](int64_t v, int c) { return load_bf16(t.w_rows + place_in_tiles(int(v), c, t.C)); };
    auto subtract = [&](int64_t v, float share) {
        Bf16& e = t.e[place_in_tiles(int(v), at + r, t.n_rows)];
        e = to_bf16(to_float(e) - share * m.of_rounded[r]);
        for (int c = 0; c < t.C; c += 16) store(dh + c, fma(all_wide(-share), weight(v, c), load_wide(dh + c)));
    };
    Wide dot = all_wide(0.0f);
    for (int c = 0; c < t.C; c += 16) dot = fma(load_bf16(h + c), weight(t.targets[row], c), dot);
    t.losses[row] = std::log(double(m.sums[r])) + m.shift[r] - sum(dot);
    if (!t.dw) return;
    subtract(t.targets[row], t.true_share);
    for (int k = 0; k < t.K; k++) subtract(t.soft[row * t.K + k], (1 - t.true_share) / t.K);
}

// h / S in pairs of positions, for dW
void pack_scaled(const Head& t, const Scratch& m, int at, int n, int padded) {
    for (int r = 0; r < n; r++) {
        Bf16* h = m.rows + size_t(r) * t.C;
        for (int c = 0; c < t.C; c += 16) store_bf16(h + c, load_bf16(h + c) * all_wide(1 / m.of_rounded[r]));
    }
    in_pairs(padded, t.C, m.rows, t.C, t.scaled + size_t(at) * 16, long(t.n_rows) * 16);
}

// dW += E (h / S), for tokens from v on and n positions of a block
void gradient_of_weight(const Head& t, int v, int n, bool add) {
    float* dw = t.dw + size_t(v) * t.C;
    const Left e = in_tiles(t.e + size_t(v) * t.n_rows, t.n_rows);
    const int whole = std::min(TOKENS, t.V - v) / 16 * 16, left = std::min(TOKENS, t.V - v) - whole;
    if (whole) product(whole, t.C, n, e, t.scaled, long(t.n_rows) * 16, dw, t.C, add);
    if (!left) return;
    dw += size_t(whole) * t.C;
    for (int c = 0; c < t.C; c += 16) {  // fewer than sixteen tokens
        float out[16 * 16];
        for (int i = 0; i < left; i++) store(out + i * 16, load_wide(dw + size_t(i) * t.C + c));
        product(16, 16, n, e.from(whole), t.scaled + size_t(c) * t.n_rows, long(t.n_rows) * 16, out, 16, add);
        for (int i = 0; i < left; i++) store(dw + size_t(i) * t.C + c, load_wide(out + i * 16));
    }
}

void work(const Head& t, const Scratch& m, Team& team) {
    Tiles tiles;
    const int n_units = round_up(t.V, TOKENS) / TOKENS;
    team.share(n_units, [&](int unit) { pack_weight(t, unit * TOKENS); });
    for (int first = 0; first < t.N; first += t.n_rows) {
        const int n = std::min(t.n_rows, t.N - first);
        team.share(round_up(n, ROWS) / ROWS, [&](int unit) {
            const int at = unit * ROWS, here = std::min(ROWS, n - at), padded = round_up(here, 32);
            pack_hidden(t, m, first + at, here);
            probabilities(t, m, at, padded);
            for (int r = 0; r < here; r++) subtract_targets(t, m, first, at, r);
            if (t.dw) pack_scaled(t, m, at, here, padded);
        });
        if (t.dw)
            team.share(n_units, [&](int unit) { gradient_of_weight(t, unit * TOKENS, round_up(n, 32), first > 0); });
    }
}

Head sizes(int32_t V, int32_t C, int32_t n_threads) {
    Head t{};
    t.V = V, t.C = C, t.tokens = round_up(V, CHUNK);
    size_t most = std::min<size_t>(MOST_ROWS / ROWS, E_BYTES / (size_t(t.tokens) * ROWS * sizeof(Bf16)));
    t.n_rows = ROWS * int(std::max<size_t>(1, std::min<size_t>(size_t(UNITS) * n_threads, most)));
    return t;
}

}  // namespace

// How many bytes of memory `mame_head_bf16` needs, with gradients or without.
EXPORTED int64_t mame_head_bf16_memory(int32_t V, int32_t C, int32_t n_threads, int32_t gradients) {
    Head t = sizes(V, C, n_threads);
    float wanted;
    t.dw = gradients ? &wanted : nullptr;
    return int64_t(t.lay_out(nullptr, n_threads, nullptr));
}

// `mame_head`, with products in bfloat16.
EXPORTED int32_t mame_head_bf16(int32_t N, int32_t V, int32_t C, int32_t K, const float* h, const float* w,
                                const int64_t* targets, const int64_t* soft, float true_share, double* losses,
                                float* dh, float* dw, void* memory, int32_t n_threads) {
    if (!all_below(targets, size_t(N), V) || !all_below(soft, size_t(N) * K, V)) return 1;
    Head t = sizes(V, C, n_threads);
    t.N = N, t.K = K, t.h = h, t.w = w, t.targets = targets, t.soft = soft, t.true_share = true_share;
    t.losses = losses, t.dh = dh, t.dw = dw;
    std::vector<Scratch> scratch(static_cast<size_t>(n_threads));
    t.lay_out(memory, n_threads, scratch.data());
    Team::run(n_threads, [&](Team& team, int me) { work(t, scratch[size_t(me)], team); });
    losses[N] = std::accumulate(losses, losses + N, 0.0);
    return 0;
}
