// The output head and its cross-entropy, forward and backward: `mamegpt.models.loss.linear_cross_entropy` in float32.
//
// N positions, V tokens of the vocabulary, C hidden size (a multiple of 16), K soft targets of a position. For a block
// of positions that the caches hold, with E = exp(h W^T) and its row sums S:
//
//     loss = log S - h W[target],    E[., targets] -= their share of S,    dh = E W / S,    dW += E^T (h / S)
//
// Three products, each logit computed once, and no maximum is looked for as long as the sums are far from the ends of
// float32. A unit of work is some positions of a block for the first three steps, some tokens of the vocabulary
// for the last.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>

#include "export.h"
#include "head.h"
#include "product.h"
#include "team.h"

namespace {

constexpr int ROWS = 96;                     // positions of a unit of work, and of a sum that is added to dW
constexpr int UNITS = 2;                     // such units of a block, for each thread
constexpr int PANELS = 8;                    // panels of W in a unit of work
constexpr int DEPTH = 16;                    // panels of E that are multiplied before the next columns of dh
constexpr size_t E_BYTES = size_t(1) << 27;  // more than this, and a block has fewer positions

struct Part {
    int begin, end;
};

struct Head {
    int N, V, C, K, n_panels, n_rows;  // n_panels = V / 16, rounded up; n_rows of a block
    const float *h, *w;                // (N, C), (V, C)
    const int64_t *targets, *soft;     // (N,), (N, K)
    float true_share;
    double* losses;                              // (N + 1,)
    float *dh, *dw;                              // (N, C), (V, C); null: only the loss is wanted
    float *w_by_v, *w_by_c, *dw_by_v;            // [V/16][C][16], [C/16][V][16], [V/16][C][16]
    float *e, *h_by_row, *scaled, *sums, *shift;  // [V/16][rows][16], [rows/TALL][C][TALL], [C/TALL][rows][TALL], (rows,), (rows,)

    float* panel_of_e(int panel) const { return e + size_t(dw ? panel : 0) * n_rows * WIDE; }
};

// Lay out W by vocabulary (for the logits) and by column (for dh); beyond the last token there are zeros.
void pack_weight(const Head& t, Part panels) {
    for (int panel = panels.begin; panel < panels.end; panel++)
        for (int j = 0; j < WIDE; j++) {
            int v = panel * WIDE + j;
            const float* row = t.w + size_t(v) * t.C;
            float* by_v = t.w_by_v + size_t(panel) * WIDE * t.C + j;
            for (int c = 0; c < t.C; c++) by_v[c * WIDE] = v < t.V ? row[c] : 0.0f;
            for (int c = 0; t.dw && c < t.C; c += WIDE) {
                float* by_c = t.w_by_c + (size_t(c) * t.n_panels + size_t(v)) * WIDE;
                for (int i = 0; i < WIDE; i++) by_c[i] = v < t.V ? row[c + i] : 0.0f;
            }
        }
}

// Call each(row, its 16 logits, how many of them are tokens) for rows of a block, panel by panel.
template <typename Each>
void logits(const Head& t, Part rows, Each each) {
    for (int panel = 0; panel < t.n_panels; panel++) {
        const float* w = t.w_by_v + size_t(panel) * WIDE * t.C;
        float* e = t.panel_of_e(panel);
        for (int r = rows.begin; r < rows.end; r += TALL)
            multiply<1, TALL>(std::min(TALL, rows.end - r), 1, t.C, t.h_by_row + size_t(r) * t.C, 0L, w, e + r * WIDE,
                              long(WIDE), false);
        int n = std::min(WIDE, t.V - panel * WIDE);
        for (int r = rows.begin; r < rows.end; r++) each(r, e + r * WIDE, n);
    }
}

// E = exp(logits - shift) and its row sums.
void exponentials(const Head& t, Part rows) {
    Vec sums[ROWS];
    for (Vec& one : sums) one = all(0.0f);
    logits(t, rows, [&](int r, float* e, int n) {
        Wide found = exp(load_wide(e) - all_wide(t.shift[r]));
        store(e, found);
        if (n < WIDE) {
            for (int j = n; j < WIDE; j++) e[j] = 0.0f;
            found = load_wide(e);
        }
        sums[r - rows.begin] = sums[r - rows.begin] + (lower(found) + upper(found));
    });
    for (int r = rows.begin; r < rows.end; r++) t.sums[r] = sum(sums[r - rows.begin]);
}

// Fill E and the sums; rows that float32 cannot hold are shifted by their largest logit.
void probabilities(const Head& t, Part rows) {
    std::fill(t.shift + rows.begin, t.shift + rows.end, 0.0f);
    exponentials(t, rows);
    if (std::all_of(t.sums + rows.begin, t.sums + rows.end, is_safe)) return;
    float most[ROWS];
    std::fill(most, most + ROWS, -INFINITY);
    logits(t, rows, [&](int r, float* e, int n) {
        for (int j = 0; j < n; j++) most[r - rows.begin] = std::max(most[r - rows.begin], e[j]);
    });
    for (int r = rows.begin; r < rows.end; r++)
        if (!is_safe(t.sums[r])) t.shift[r] = most[r - rows.begin];
    exponentials(t, rows);
}

// loss = log S + shift - logit of the target; then E becomes S times the gradient of the logits.
void subtract_targets(const Head& t, int first, Part rows) {
    for (int r = rows.begin; r < rows.end; r++) {
        const float *h = t.h + size_t(first + r) * t.C, *w = t.w + size_t(t.targets[first + r]) * t.C;
        Vec dot = all(0.0f);
        for (int c = 0; c < t.C; c += 8) dot = fma(load(h + c), load(w + c), dot);
        t.losses[first + r] = std::log(double(t.sums[r])) + t.shift[r] - sum(dot);
        auto subtract = [&](int64_t v, float share) {
            if (t.dw) t.panel_of_e(int(v / WIDE))[r * WIDE + v % WIDE] -= share * t.sums[r];
        };
        subtract(t.targets[first + r], t.true_share);
        for (int k = 0; k < t.K; k++) subtract(t.soft[size_t(first + r) * t.K + k], (1 - t.true_share) / t.K);
    }
}

// dh = E W / S
void gradient_of_hidden(const Head& t, int first, Part rows) {
    float* dh = t.dh + size_t(first) * t.C;
    for (int panel = 0; panel < t.n_panels; panel += DEPTH)
        for (int c = 0; c < t.C; c += WIDE) {
            const float* w = t.w_by_c + (size_t(c) * t.n_panels + size_t(panel) * WIDE) * WIDE;
            for (int r = rows.begin; r < rows.end; r += TALL)
                multiply<WIDE, 1>(std::min(TALL, rows.end - r), std::min(DEPTH, t.n_panels - panel), WIDE,
                                  t.panel_of_e(panel) + r * WIDE, long(t.n_rows) * WIDE, w, dh + size_t(r) * t.C + c,
                                  long(t.C), panel > 0);
        }
    for (int r = rows.begin; r < rows.end; r++)
        for (int c = 0; c < t.C; c++) dh[size_t(r) * t.C + c] /= t.sums[r];
}

// Lay out h by TALL rows for the logits.
void pack_hidden(const Head& t, int first, Part rows) {
    for (int r = rows.begin; r < rows.end; r++)
        for (int c = 0; c < t.C; c++)
            t.h_by_row[size_t(r / TALL * TALL) * t.C + c * TALL + r % TALL] = t.h[size_t(first + r) * t.C + c];
}

// Lay out h / S by TALL columns for dW.
void pack_scaled(const Head& t, int first, Part rows) {
    for (int r = rows.begin; r < rows.end; r++)
        for (int c = 0; c < t.C; c++)
            t.scaled[size_t(c / TALL * TALL) * t.n_rows + r * TALL + c % TALL] =
                t.h[size_t(first + r) * t.C + c] / t.sums[r];
}

// dW^T += (h / S)^T E
void gradient_of_weight(const Head& t, int n, Part panels, bool add) {
    for (int panel = panels.begin; panel < panels.end; panel++)
        for (int r = 0; r < n; r += ROWS)
            for (int c = 0; c < t.C; c += TALL)
                multiply<1, TALL>(std::min(TALL, t.C - c), 1, std::min(ROWS, n - r),
                                  t.scaled + size_t(c) * t.n_rows + r * TALL, 0L, t.panel_of_e(panel) + r * WIDE,
                                  t.dw_by_v + (size_t(panel) * t.C + c) * WIDE, long(WIDE), add || r > 0);
}

void unpack_gradient(const Head& t, Part panels) {
    for (int v = panels.begin * WIDE; v < std::min(t.V, panels.end * WIDE); v++)
        for (int c = 0; c < t.C; c++)
            t.dw[size_t(v) * t.C + c] = t.dw_by_v[(size_t(v / WIDE) * t.C + c) * WIDE + v % WIDE];
}

void work(const Head& t, Team& team) {
    auto share_panels = [&](auto each) {
        team.share((t.n_panels + PANELS - 1) / PANELS,
                   [&](int unit) { each(Part{unit * PANELS, std::min(t.n_panels, (unit + 1) * PANELS)}); });
    };
    share_panels([&](Part panels) { pack_weight(t, panels); });
    for (int first = 0; first < t.N; first += t.n_rows) {
        int n = std::min(t.n_rows, t.N - first);
        team.share((n + ROWS - 1) / ROWS, [&](int unit) {
            Part rows{unit * ROWS, std::min(n, (unit + 1) * ROWS)};
            pack_hidden(t, first, rows);
            probabilities(t, rows);
            subtract_targets(t, first, rows);
            if (!t.dw) return;
            gradient_of_hidden(t, first, rows);
            pack_scaled(t, first, rows);
        });
        if (t.dw) share_panels([&](Part panels) { gradient_of_weight(t, n, panels, first > 0); });
    }
    if (t.dw && t.N) share_panels([&](Part panels) { unpack_gradient(t, panels); });
}

// Room for all but the inputs and outputs, as floats; takes from `memory` if there is one. Returns how many.
size_t lay_out(Head& t, float* memory, bool gradients) {
    size_t taken = 0;
    auto take = [&](float*& part, size_t n) {
        part = memory ? memory + taken : nullptr;
        taken += (n + 15) / 16 * 16;  // each begins on a line of the cache
    };
    size_t weight = size_t(t.n_panels) * WIDE * t.C, rows = size_t(t.n_rows);
    take(t.w_by_v, weight);
    take(t.w_by_c, gradients ? weight : 0);
    take(t.dw_by_v, gradients ? weight : 0);
    take(t.e, rows * WIDE * (gradients ? t.n_panels : 1));
    take(t.h_by_row, rows * t.C);
    take(t.scaled, gradients ? rows * (t.C + TALL) : 0);
    take(t.sums, rows);
    take(t.shift, rows);
    return taken;
}

Head sizes(int32_t V, int32_t C, int32_t n_threads) {
    Head t{};
    t.V = V, t.C = C, t.n_panels = (V + WIDE - 1) / WIDE;
    size_t most = E_BYTES / (size_t(t.n_panels) * WIDE * ROWS * sizeof(float));
    t.n_rows = ROWS * int(std::max<size_t>(1, std::min<size_t>(size_t(UNITS) * n_threads, most)));
    return t;
}

}  // namespace

// How many floats of memory `mame_head` needs, with gradients or without.
EXPORTED int64_t mame_head_memory(int32_t V, int32_t C, int32_t n_threads, int32_t gradients) {
    Head t = sizes(V, C, n_threads);
    return int64_t(lay_out(t, nullptr, gradients));
}

// Fill `losses` (N + 1,), the last of which is their sum, and, unless they are null, dh (N, C) and dw (V, C).
// Returns 0, or 1 if an id is no token of the vocabulary.
EXPORTED int32_t mame_head(int32_t N, int32_t V, int32_t C, int32_t K, const float* h, const float* w,
                           const int64_t* targets, const int64_t* soft, float true_share, double* losses, float* dh,
                           float* dw, float* memory, int32_t n_threads) {
    if (!all_below(targets, size_t(N), V) || !all_below(soft, size_t(N) * K, V)) return 1;
    Head t = sizes(V, C, n_threads);
    t.N = N, t.K = K, t.h = h, t.w = w, t.targets = targets, t.soft = soft, t.true_share = true_share;
    t.losses = losses, t.dh = dh, t.dw = dw;
    lay_out(t, memory, dw != nullptr);
    Team::run(n_threads, [&](Team& team, int) { work(t, team); });
    losses[N] = std::accumulate(losses, losses + N, 0.0);
    return 0;
}
