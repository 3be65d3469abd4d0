// The next token of one sequence: a decoding step of every architecture here, and the output head for one position.
//
// A position reads each weight once, so a step takes as long as memory needs to bring them; nothing is copied. Letters
// are those of the models: C hidden size, H heads, K heads of keys and values, D width of a head, F feed-forward width,
// V tokens of the vocabulary. C and F are multiples of 8, D is one of 16.
#include <cstdlib>

#include "export.h"
#include "step.h"

namespace {

struct Block {
    Norm before_attention, of_queries, of_keys;  // (C,), (D,), (D,)
    Linear q, k, v, out;                         // (H D, C), (K D, C), (K D, C), (C, H D)
    Norm before_mlp;
    Linear gate, up, down;  // (F, C), (F, C), (C, F); no gate: GELU
    float *keys, *values;   // (K, capacity, D), filled up to the position
};

struct Model {
    int32_t n_blocks, C, H, K, D, F, capacity;
    float eps;
    const float *embedding, *positions, *rope;  // (V, C); (capacity, C) or null; (2, capacity, D/2) or null
    Norm last;
    const Block* blocks;
};

struct Memory {
    float *q, *k, *v, *attended, *gate, *up;  // (H D,), (K D,), (K D,), (H D,), (F,), (F,)
    float* own;                               // of each thread: what it needs for a vector or the row of a softmax
    size_t n_own;
};

// Take parts of `memory`, if there is one; returns how many floats they have.
size_t lay_out(const Model& m, float* memory, int n_threads, Memory& out) {
    size_t taken = 0;
    auto take = [&](float*& part, size_t n) {
        part = memory ? memory + taken : nullptr;
        taken += (n + 15) / 16 * 16;
    };
    size_t HD = size_t(m.H) * m.D, KD = size_t(m.K) * m.D;
    take(out.q, HD), take(out.k, KD), take(out.v, KD), take(out.attended, HD);
    take(out.gate, size_t(m.F)), take(out.up, size_t(m.F));
    out.n_own = (size_t(std::max({m.C, m.F, m.capacity})) + 31) / 16 * 16;
    take(out.own, out.n_own * size_t(n_threads));
    return taken;
}

// The heads of queries of one head of keys: normalize, rotate, remember and attend.
void heads(const Model& m, const Block& b, const Memory& s, int position, int key_head, float* p) {
    auto place = [&](const Norm& norm, float* x) {
        if (norm.scale) normalize(norm, m.eps, m.D, x, x);
        if (!m.rope) return;
        const float* cosines = m.rope + size_t(position) * (m.D / 2);
        rotate(m.D, cosines, cosines + size_t(m.capacity) * (m.D / 2), 1.0f, x, x);
    };
    float *k = s.k + key_head * m.D, *v = s.v + key_head * m.D;
    float* keys = b.keys + size_t(key_head) * m.capacity * m.D;
    float* values = b.values + size_t(key_head) * m.capacity * m.D;
    place(b.of_keys, k);
    std::copy(k, k + m.D, keys + size_t(position) * m.D);
    std::copy(v, v + m.D, values + size_t(position) * m.D);
    for (int head = key_head * (m.H / m.K); head < (key_head + 1) * (m.H / m.K); head++) {
        place(b.of_queries, s.q + head * m.D);
        attend(position + 1, m.D, s.q + head * m.D, keys, values, p, s.attended + head * m.D);
    }
}

// x becomes the final hidden state (C,).
void step(const Model& m, const Memory& s, int token, int position, float* x, Team& team, int me) {
    float* own = s.own + s.n_own * size_t(me);
    team.share(1, [&](int) {
        for (int c = 0; c < m.C; c++)
            x[c] = m.embedding[size_t(token) * m.C + c] + (m.positions ? m.positions[size_t(position) * m.C + c] : 0.0f);
    });
    for (const Block* b = m.blocks; b < m.blocks + m.n_blocks; b++) {
        normalize(b->before_attention, m.eps, m.C, x, own);
        multiply(team, {{b->q, m.H * m.D, s.q}, {b->k, m.K * m.D, s.k}, {b->v, m.K * m.D, s.v}}, m.C, own, false);
        team.share(m.K, [&](int head) { heads(m, *b, s, position, head, own); });
        multiply(team, {{b->out, m.C, x}}, m.H * m.D, s.attended, true);
        normalize(b->before_mlp, m.eps, m.C, x, own);
        multiply(team, {{b->gate, b->gate.weight ? m.F : 0, s.gate}, {b->up, m.F, s.up}}, m.C, own, false);
        activate(m.F, b->gate.weight ? s.gate : nullptr, s.up, own);
        multiply(team, {{b->down, m.C, x}}, m.F, own, true);
    }
    team.share(1, [&](int) { normalize(m.last, m.eps, m.C, x, x); });
}

}  // namespace

// How many floats of memory `mame_step` needs.
EXPORTED int64_t mame_step_memory(const Model* m, int32_t n_threads) {
    Memory s;
    return int64_t(lay_out(*m, nullptr, n_threads, s));
}

// Append a token at a position below the capacity; `state` (C,) becomes its final hidden state.
EXPORTED void mame_step(const Model* m, int32_t token, int32_t position, float* state, float* memory,
                        int32_t n_threads) {
    Memory s;
    lay_out(*m, memory, n_threads, s);
    Team::run(n_threads, [&](Team& team, int me) { step(*m, s, token, position, state, team, me); });
}

// Logits (V,) of a state (C,) by the head's weight (V, C).
EXPORTED void mame_logits(int32_t V, int32_t C, const float* w, const float* state, float* out, int32_t n_threads) {
    Team::run(n_threads, [&](Team& team, int) { multiply(team, {{{w, nullptr}, V, out}}, C, state, false); });
}

// Round a weight (V, C) to whole numbers of size 127 at most, of which `largest` is the largest in size: `rounded` (V, C).
// Returns the largest sum of a row's absolute values. C is a multiple of 16.
EXPORTED int32_t mame_round(int32_t V, int32_t C, const float* w, float largest, int8_t* rounded) {
    int32_t most = 0;
    Vec factor = all(127 / largest);
    for (int v = 0; v < V; v++) {
        int32_t total = 0;
        for (int c = 0; c < C; c += 8) {
            float part[8];
            store(part, nearest(load(w + size_t(v) * C + c) * factor));
            for (int i = 0; i < 8; i++) {
                int32_t whole = int32_t(part[i]);
                rounded[size_t(v) * C + c + i] = int8_t(whole);
                total += std::abs(whole);
            }
        }
        most = std::max(most, total);
    }
    return most;
}

// The id of the largest logit, the first of equals, by way of the weight rounded to whole numbers (V, C): `rough` (V,)
// becomes their product with the state in whole numbers, x (C,), and only ids within `slack` of its largest are computed
// in float32. C is a multiple of 16.
EXPORTED int32_t mame_most_likely(int32_t V, int32_t C, const float* w, const int8_t* rounded, const float* state,
                                  const int16_t* x, int32_t slack, int32_t* rough, int32_t n_threads) {
    constexpr int UNIT = 256;
    Team::run(n_threads, [&](Team& team, int) {
        team.share((V + UNIT - 1) / UNIT, [&](int unit) {
            for (int v = unit * UNIT; v < std::min(V, (unit + 1) * UNIT); v++) rough[v] = dot(rounded + size_t(v) * C, x, C);
        });
    });
    int32_t least = *std::max_element(rough, rough + V) - slack, best = 0;
    float most = -INFINITY, logit;
    for (int v = 0; v < V; v++)
        if (rough[v] >= least) {
            dots<1>(w + size_t(v) * C, C, state, &logit);
            if (logit > most) most = logit, best = v;
        }
    return best;
}
