// A block of Qwen3 or Llama over whole windows, forward and backward, with products in bfloat16: the `Block` of the
// models in training.
//
// A window is computed from its first norm to its end by one thread, in whose cache it stays. Attention is computed
// transposed, keys down and queries across, so that sums over keys are sums of registers. Gradients of weights need all
// windows: each leaves its parts laid out for one product, whose unit of work is 32 rows of a matrix.
#include "block.h"

#include <cmath>

#include "export.h"
#include "team.h"

namespace {

struct Input {
    const float* weights[N_WEIGHTS];
    const float *x, *rope;  // (n, T, C); cosines and sines (2, T, D/2), `sines` numbers apart
    long sines;
};

// --- weights ---

// Rows r to r + 31 of a matrix as bfloat16, padded with zeros: (32, in)
void stage(const Layout& l, const Matrix& matrix, const float* w, int r, Bf16* staged) {
    const int in = l.in[matrix.joint];
    std::fill_n(staged, 32 * size_t(in), Bf16(0));
    for (int i = 0; i < std::min(32, matrix.out - r); i++)
        for (int k = 0; k < matrix.in; k++) staged[size_t(i) * in + k] = to_bf16(w[size_t(r + i) * matrix.in + k]);
}

// Call each(matrix, its first row) for 32 rows at a time, as units of work.
template <typename Each>
void share_rows(const Layout& l, Team& team, Each each) {
    int ends[7], n = 0;
    for (int i = 0; i < 7; i++) ends[i] = n += round_up(l.matrices[i].out, 32) / 32;
    team.share(n, [&](int unit) {
        int i = 0, begin = 0;
        while (unit >= ends[i]) begin = ends[i++];
        each(l.matrices[i], (unit - begin) * 32);
    });
}

// Lay out all matrices for y = x W^T (forward), or for dx = dy W.
void pack(const Layout& l, const Input& in, bool forward, Bf16* const packed[N_JOINTS], Bf16* staged, Team& team) {
    share_rows(l, team, [&](const Matrix& matrix, int r) {
        const int width = l.in[matrix.joint], first = matrix.first + r;
        stage(l, matrix, in.weights[matrix.name], r, staged);
        Bf16* to = packed[matrix.joint];
        if (forward) transposed_in_pairs(width, 32, staged, width, to + size_t(first) * width, long(width) * 16);
        else in_pairs(32, width, staged, width, to + size_t(first) * 16, long(l.out[matrix.joint]) * 16);
    });
}

// (P, out) = X W^T, where X is (P, in)
void linear(const Layout& l, Joint joint, const Bf16* x, const Bf16* packed, float* out, bool add = false) {
    product(l.s.P(), l.out[joint], l.in[joint], in_rows(x, l.in[joint]), packed, long(l.in[joint]) * 16, out, l.out[joint], add);
}

// (P, in) = dY W, where dY is (P, out)
void linear_back(const Layout& l, Joint joint, const Bf16* dy, const Bf16* packed, float* out) {
    product(l.s.P(), l.in[joint], l.out[joint], in_rows(dy, l.out[joint]), packed, long(l.out[joint]) * 16, out, l.in[joint],
            false);
}

// --- norms and rotation ---

float factor(const float* x, int n, float eps) {  // of RMSNorm: 1 / sqrt(mean(x^2) + eps)
    Wide squares = all_wide(0.0f);
    for (int i = 0; i < n; i += 16) squares = fma(load_wide(x + i), load_wide(x + i), squares);
    return 1 / std::sqrt(sum(squares) / n + eps);
}

// RMSNorm of the rows of x (T, C) as bfloat16 (P, C)
void normalize(const Sizes& s, const float* x, const float* weight, const float* factors, Bf16* out) {
    for (int t = 0; t < s.T; t++, x += s.C, out += s.C)
        for (int c = 0; c < s.C; c += 16)
            store_bf16(out + c, load_wide(x + c) * all_wide(factors[t]) * load_wide(weight + c));
    std::fill_n(out, size_t(s.P() - s.T) * s.C, Bf16(0));
}

// dx += the gradient of RMSNorm for dy; d_weight += that of its weight. With z = x r:
// dx = r (dy w - z mean(dy w z))
void normalize_back(int n, const float* x, const float* weight, float r, const float* dy, float* dx, float* d_weight) {
    Wide dot = all_wide(0.0f), scale = all_wide(r);
    for (int i = 0; i < n; i += 16) {
        Wide z = load_wide(x + i) * scale, d = load_wide(dy + i);
        store(d_weight + i, fma(d, z, load_wide(d_weight + i)));
        dot = fma(d * load_wide(weight + i), z, dot);
    }
    Wide mean = all_wide(sum(dot) / n);
    for (int i = 0; i < n; i += 16) {
        Wide z = load_wide(x + i) * scale;
        store(dx + i, load_wide(dx + i) + scale * (load_wide(dy + i) * load_wide(weight + i) - z * mean));
    }
}

// Rotate the pairs (x_i, x_{i + D/2}) of a head at position t, in one direction or back.
void rotate(const Sizes& s, const Input& in, int t, float direction, float* x) {
    const int half = s.D / 2;
    const float *cosines = in.rope + size_t(t) * half, *sines = cosines + in.sines;
    for (int i = 0; i < half; i += 16) {
        Wide a = load_wide(x + i), b = load_wide(x + half + i), cosine = load_wide(cosines + i);
        Wide sine = load_wide(sines + i) * all_wide(direction);
        store(x + i, a * cosine - b * sine), store(x + half + i, b * cosine + a * sine);
    }
}

// --- forward ---

constexpr int WIDEST_HEAD = 512;

// Queries, keys and values (P, QKV) from the product: the first two normalized and rotated, queries also / sqrt(D).
void split_heads(const Sizes& s, const Input& in, const Kept& k, const float* product) {
    const int n_heads = s.H + s.G, n_rotated = n_heads * s.D;
    for (int t = 0; t < s.T; t++, product += s.QKV()) {
        Bf16* to = k.qkv + size_t(t) * s.QKV();
        if (s.normalizes) round_to(n_rotated, product, k.qk + size_t(t) * n_rotated);
        for (int head = 0; head < n_heads; head++) {
            const bool is_query = head < s.H;
            const float *x = product + head * s.D, *weight = in.weights[is_query ? Q_NORM : K_NORM];
            const Wide scale = all_wide(is_query ? 1 / std::sqrt(float(s.D)) : 1.0f);
            float y[WIDEST_HEAD], r = s.normalizes ? factor(x, s.D, s.eps) : 1.0f;
            k.head_scales[size_t(t) * n_heads + head] = r;
            for (int i = 0; i < s.D; i += 16) {
                Wide z = load_wide(x + i) * all_wide(r) * scale;
                store(y + i, s.normalizes ? z * load_wide(weight + i) : z);
            }
            rotate(s, in, t, 1, y);
            round_to(s.D, y, to + head * s.D);
        }
        round_to(s.KV(), product + n_rotated, to + n_rotated);
    }
    std::fill_n(k.qkv + size_t(s.T) * s.QKV(), size_t(s.P() - s.T) * s.QKV(), Bf16(0));
}

// Ones and zeros: sixteen from `32 - key + query` on say which of these queries see the key.
const float* seen(int key, int query) {
    static const float stairs[64] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                     0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                     1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    return stairs + 32 - key + query;
}

// Softmax over the keys of scores (first + 32, 32), whose queries are `first` and the next 31; the result in rows and in
// pairs.
void softmax(int first, float* scores, Bf16* rows, long row, Bf16* pairs, long panel) {
    const int n = first + 32;
    for (int q = 0; q < 32; q += 16) {
        float* x = scores + q;
        for (int key = first; key < n; key++) {
            Wide unseen = load_wide(seen(key - first, q)) - all_wide(1.0f);
            store(x + key * 32, fma(unseen, all_wide(1e30f), load_wide(x + key * 32)));
        }
        Wide most = load_wide(x), sums = all_wide(0.0f);
        for (int key = 1; key < n; key++) most = larger(most, load_wide(x + key * 32));
        for (int key = 0; key < n; key++) {
            Wide e = exp_to_round(load_wide(x + key * 32) - most);
            if (key >= first) e = e * load_wide(seen(key - first, q));
            store(x + key * 32, e);
            sums = sums + e;
        }
        const Wide share = all_wide(1.0f) / sums;
        Bf16 *to = rows + first + q, *to_pairs = pairs + q / 16 * panel;
        for (int key = 0; key < n; key += 2, to += 2 * row, to_pairs += 32) {
            Wide a = load_wide(x + key * 32) * share, b = load_wide(x + key * 32 + 32) * share;
            store(to_pairs, store_both(to, to + row, a, b));
        }
    }
}

// O (P, Q) from queries, keys and values; 32 queries at a time, over the keys that one of them sees.
void attend(const Sizes& s, const Kept& k, const Scratch& m) {
    const int P = s.P(), D = s.D;
    for (int group = 0; group < s.G; group++) {
        const Bf16 *keys = k.qkv + s.Q() + group * D, *values = keys + s.KV();
        transposed(P, D, values, s.QKV(), m.across, P);
        for (int head = group * s.H / s.G; head < (group + 1) * s.H / s.G; head++) {
            Bf16* p = k.p + size_t(head) * P * P;
            transposed_in_pairs(D, P, k.qkv + head * D, s.QKV(), m.pairs_of_q, D * 16L);
            for (int q = 0; q < P; q += 32) {
                product(q + 32, 32, D, in_rows(keys, s.QKV()), m.pairs_of_q + q * D, D * 16L, m.scores, 32, false);
                softmax(q, m.scores, p, P, m.pairs_of_p, P * 16L);
                product(D, 32, q + 32, in_rows(m.across, P), m.pairs_of_p, P * 16L, m.o_across, 32, false);
                transposed(D, 32, m.o_across, 32, k.o + size_t(q) * s.Q() + head * D, s.Q());
            }
        }
    }
}

Wide sigmoid(Wide x) { return all_wide(1.0f) / (all_wide(1.0f) + exp_to_round(all_wide(0.0f) - x)); }

// SiLU(gate) * up, (P, E), of both (P, 2 E)
void swiglu(const Sizes& s, const Bf16* gate_up, Bf16* out) {
    for (int t = 0; t < s.P(); t++, gate_up += 2 * s.E(), out += s.E())
        for (int i = 0; i < s.E(); i += 16) {
            Wide gate = load_bf16(gate_up + i);
            store_bf16(out + i, gate * sigmoid(gate) * load_bf16(gate_up + s.E() + i));
        }
}

void forward(const Layout& l, const Input& in, Bf16* const packed[N_JOINTS], const Kept& k, const Scratch& m,
             const float* x, float* out) {
    const Sizes& s = l.s;
    const size_t n = size_t(s.T) * s.C;
    for (int t = 0; t < s.T; t++) k.scale_1[t] = factor(x + size_t(t) * s.C, s.C, s.eps);
    normalize(s, x, in.weights[NORM_1], k.scale_1, m.hidden);
    linear(l, QKV_JOINT, m.hidden, packed[QKV_JOINT], m.wide);
    split_heads(s, in, k, m.wide);
    attend(s, k, m);
    std::copy_n(x, n, k.middle), std::fill(k.middle + n, k.middle + size_t(s.P()) * s.C, 0.0f);
    linear(l, O_JOINT, k.o, packed[O_JOINT], k.middle, true);

    for (int t = 0; t < s.T; t++) k.scale_2[t] = factor(k.middle + size_t(t) * s.C, s.C, s.eps);
    normalize(s, k.middle, in.weights[NORM_2], k.scale_2, m.hidden);
    linear(l, GATE_UP_JOINT, m.hidden, packed[GATE_UP_JOINT], m.wide);
    round_to(s.P() * 2 * s.E(), m.wide, k.gate_up);
    swiglu(s, k.gate_up, m.act);
    linear(l, DOWN_JOINT, m.act, packed[DOWN_JOINT], m.narrow);
    for (size_t i = 0; i < n; i += 16) store(out + i, load_wide(k.middle + i) + load_wide(m.narrow + i));
}

// --- backward ---

// What one window leaves for the gradients of weights: of each joint matrix dY and X, the narrower one transposed, the
// other one in pairs of positions; and its own gradients of the norms.
struct Parts {
    Bf16 *dy[N_JOINTS], *x[N_JOINTS];
    float *norm_1, *norm_2, *q_norm, *k_norm;

    Parts(const Layout& l, Room& room) {
        for (int i = 0; i < N_JOINTS; i++)
            room.take(dy[i], size_t(l.out[i]) * l.s.P()), room.take(x[i], size_t(l.in[i]) * l.s.P());
        room.take(norm_1, size_t(l.s.C)), room.take(norm_2, size_t(l.s.C));
        room.take(q_norm, size_t(l.s.D)), room.take(k_norm, size_t(l.s.D));
    }
    void keep_dy(const Layout& l, Joint joint, const Bf16* of) const {
        keep(l.s.P(), l.out[joint], of, dy[joint], !l.widens(joint));
    }
    void keep_x(const Layout& l, Joint joint, const Bf16* of) const {
        keep(l.s.P(), l.in[joint], of, x[joint], l.widens(joint));
    }
    static void keep(int P, int width, const Bf16* of, Bf16* to, bool transposes) {
        if (transposes) transposed(P, width, of, width, to, P);
        else in_pairs(P, width, of, width, to, P * 16L);
    }
};

// (P, C) as bfloat16, of T rows
void round_rows(const Sizes& s, const float* x, Bf16* out) {
    round_to(s.T * s.C, x, out);
    std::fill_n(out + size_t(s.T) * s.C, size_t(s.P() - s.T) * s.C, Bf16(0));
}

// act = SiLU(gate) * up again, and the gradients of gate and up, (P, 2 E), for d_act (P, E). With g = gate and
// z = sigmoid(g): d_up = d g z      d_gate = d up (z + g z (1 - z))
void swiglu_back(const Sizes& s, const Bf16* gate_up, const float* d_act, Bf16* act, Bf16* d_gate_up) {
    const int E = s.E();
    for (int t = 0; t < s.P(); t++, gate_up += 2 * E, d_gate_up += 2 * E, act += E, d_act += E)
        for (int i = 0; i < E; i += 16) {
            Wide gate = load_bf16(gate_up + i), up = load_bf16(gate_up + E + i), d = load_wide(d_act + i);
            Wide z = sigmoid(gate), silu = gate * z;
            store_bf16(act + i, silu * up);
            store_bf16(d_gate_up + E + i, d * silu);
            store_bf16(d_gate_up + i, d * up * fma(silu, all_wide(1.0f) - z, z));
        }
}

// dots[q] = dO . O, the mean of dP under P
void dots_with_output(const Sizes& s, const Bf16* d_o, const Bf16* o, float* dots) {
    for (int q = 0; q < s.P(); q++, d_o += s.Q(), o += s.Q()) {
        Wide dot = all_wide(0.0f);
        for (int i = 0; i < s.D; i += 16) dot = fma(load_bf16(d_o + i), load_bf16(o + i), dot);
        dots[q] = sum(dot);
    }
}

// dS = P (dP - dots) of 32 queries, in rows and in pairs, from dP (first + 32, 32).
void softmax_back(int first, const float* d_p, const Bf16* p, const float* dots, Bf16* rows, long row, Bf16* pairs,
                  long panel) {
    for (int q = 0; q < 32; q += 16) {
        const Wide dot = load_wide(dots + first + q);
        const Bf16* from = p + first + q;
        Bf16 *to = rows + first + q, *to_pairs = pairs + q / 16 * panel;
        for (int key = 0; key < first + 32; key += 2, from += 2 * row, to += 2 * row, to_pairs += 32) {
            Wide a = load_bf16(from) * (load_wide(d_p + key * 32 + q) - dot);
            Wide b = load_bf16(from + row) * (load_wide(d_p + key * 32 + 32 + q) - dot);
            store(to_pairs, store_both(to, to + row, a, b));
        }
    }
}

// The gradients of queries, keys and values as they were multiplied, (P, QKV), for dO (P, Q).
void attend_back(const Sizes& s, const Kept& k, const Scratch& m) {
    const int P = s.P(), D = s.D;
    for (int group = 0; group < s.G; group++) {
        const Bf16 *keys = k.qkv + s.Q() + group * D, *values = keys + s.KV();
        float *d_keys = m.d_qkv + s.Q() + group * D, *d_values = d_keys + s.KV();
        transposed(P, D, keys, s.QKV(), m.across, P);
        for (int head = group * s.H / s.G; head < (group + 1) * s.H / s.G; head++) {
            const Bf16 *p = k.p + size_t(head) * P * P, *d_o = m.d_o + head * D;
            const bool add = head > group * s.H / s.G;
            dots_with_output(s, d_o, k.o + head * D, m.dots);
            transposed_in_pairs(D, P, d_o, s.Q(), m.pairs_of_q, D * 16L);
            for (int q = 0; q < P; q += 32) {
                product(q + 32, 32, D, in_rows(values, s.QKV()), m.pairs_of_q + q * D, D * 16L, m.scores, 32, false);
                softmax_back(q, m.scores, p, m.dots, m.d_scores, P, m.pairs_of_p, P * 16L);
                product(D, 32, q + 32, in_rows(m.across, P), m.pairs_of_p, P * 16L, m.o_across, 32, false);
                float* dq = m.d_qkv + size_t(q) * s.QKV() + head * D;
                for (int i = 0; i < 32; i++)
                    for (int d = 0; d < D; d++) dq[size_t(i) * s.QKV() + d] = m.o_across[d * 32 + i];
            }
            in_pairs(P, D, d_o, s.Q(), m.pairs_1, P * 16L);
            in_pairs(P, D, k.qkv + head * D, s.QKV(), m.pairs_2, P * 16L);
            for (int key = 0; key < P; key += 32) {  // from the queries that see one of these keys
                const size_t at = size_t(key) * P + key, row = size_t(key) * s.QKV();
                product(32, D, P - key, in_rows(p + at, P), m.pairs_1 + key * 16, P * 16L, d_values + row, s.QKV(), add);
                product(32, D, P - key, in_rows(m.d_scores + at, P), m.pairs_2 + key * 16, P * 16L, d_keys + row, s.QKV(), add);
            }
        }
    }
}

// From the gradients of queries, keys and values as they were multiplied to those of the product, (P, QKV).
void split_heads_back(const Sizes& s, const Input& in, const Kept& k, float* d_qkv, const Parts& parts, Bf16* out) {
    const int n_heads = s.H + s.G, n_rotated = n_heads * s.D;
    for (int t = 0; t < s.T; t++, d_qkv += s.QKV(), out += s.QKV()) {
        for (int head = 0; head < n_heads; head++) {
            const bool is_query = head < s.H;
            const Wide scale = all_wide(is_query ? 1 / std::sqrt(float(s.D)) : 1.0f);
            float *d = d_qkv + head * s.D, x[WIDEST_HEAD], dx[WIDEST_HEAD] = {};
            rotate(s, in, t, -1, d);
            for (int i = 0; i < s.D; i += 16) store(d + i, load_wide(d + i) * scale);
            if (s.normalizes) {
                const Bf16* kept = k.qk + size_t(t) * n_rotated + head * s.D;
                for (int i = 0; i < s.D; i += 16) store(x + i, load_bf16(kept + i));
                const float r = k.head_scales[size_t(t) * n_heads + head];
                normalize_back(s.D, x, in.weights[is_query ? Q_NORM : K_NORM], r, d, dx,
                               is_query ? parts.q_norm : parts.k_norm);
                d = dx;
            }
            round_to(s.D, d, out + head * s.D);
        }
        round_to(s.KV(), d_qkv + n_rotated, out + n_rotated);
    }
    std::fill_n(out, size_t(s.P() - s.T) * s.QKV(), Bf16(0));
}

void backward(const Layout& l, const Input& in, Bf16* const packed[N_JOINTS], const Kept& k, const Scratch& m,
              const Parts& parts, const float* x, const float* d_out, float* dx) {
    const Sizes& s = l.s;
    std::fill_n(parts.norm_1, s.C, 0.0f), std::fill_n(parts.norm_2, s.C, 0.0f);
    std::fill_n(parts.q_norm, s.D, 0.0f), std::fill_n(parts.k_norm, s.D, 0.0f);
    auto through_norm = [&](const float* x, Name name, const float* factors, float* d_weight) {
        for (int t = 0; t < s.T; t++) {
            size_t row = size_t(t) * s.C;
            normalize_back(s.C, x + row, in.weights[name], factors[t], m.narrow + row, dx + row, d_weight);
        }
    };

    round_rows(s, d_out, m.narrow_bf16);
    linear_back(l, DOWN_JOINT, m.narrow_bf16, packed[DOWN_JOINT], m.wide);
    parts.keep_dy(l, DOWN_JOINT, m.narrow_bf16);
    swiglu_back(s, k.gate_up, m.wide, m.act, m.wide_bf16);
    parts.keep_x(l, DOWN_JOINT, m.act);
    linear_back(l, GATE_UP_JOINT, m.wide_bf16, packed[GATE_UP_JOINT], m.narrow);
    parts.keep_dy(l, GATE_UP_JOINT, m.wide_bf16);
    normalize(s, k.middle, in.weights[NORM_2], k.scale_2, m.hidden);
    parts.keep_x(l, GATE_UP_JOINT, m.hidden);
    std::copy_n(d_out, size_t(s.T) * s.C, dx);
    through_norm(k.middle, NORM_2, k.scale_2, parts.norm_2);

    round_rows(s, dx, m.narrow_bf16);
    linear_back(l, O_JOINT, m.narrow_bf16, packed[O_JOINT], m.wide);
    parts.keep_dy(l, O_JOINT, m.narrow_bf16), parts.keep_x(l, O_JOINT, k.o);
    round_to(s.P() * s.Q(), m.wide, m.d_o);
    attend_back(s, k, m);
    split_heads_back(s, in, k, m.d_qkv, parts, m.wide_bf16);
    linear_back(l, QKV_JOINT, m.wide_bf16, packed[QKV_JOINT], m.narrow);
    parts.keep_dy(l, QKV_JOINT, m.wide_bf16);
    normalize(s, x, in.weights[NORM_1], k.scale_1, m.hidden);
    parts.keep_x(l, QKV_JOINT, m.hidden);
    through_norm(x, NORM_1, k.scale_1, parts.norm_1);
}

// 32 rows of the gradient of a matrix: the sum over all windows of dY^T X, or of its transpose X^T dY
void gradient_of_matrix(const Layout& l, const Matrix& matrix, int r, const std::vector<Parts>& parts, float* sums,
                        float* out) {
    const int in = l.in[matrix.joint], P = l.s.P();
    const bool widens = l.widens(matrix.joint);
    if (parts.empty()) std::fill_n(sums, 32 * size_t(in), 0.0f);
    for (size_t i = 0; i < parts.size(); i++) {
        const Bf16 *dy = parts[i].dy[matrix.joint] + size_t(matrix.first + r) * P, *x = parts[i].x[matrix.joint];
        if (widens) product(in, 32, P, in_rows(x, P), dy, P * 16L, sums, 32, i > 0);
        else product(32, in, P, in_rows(dy, P), x, P * 16L, sums, in, i > 0);
    }
    for (int i = 0; i < std::min(32, matrix.out - r); i++)
        for (int k = 0; k < matrix.in; k++)
            out[size_t(r + i) * matrix.in + k] = sums[widens ? k * 32 + i : i * in + k];
}

void gradients_of_norms(const Sizes& s, const std::vector<Parts>& parts, float* const d_weights[N_WEIGHTS]) {
    auto add_up = [&](Name name, int n, float* Parts::*of) {
        std::fill_n(d_weights[name], n, 0.0f);
        for (const Parts& one : parts)
            for (int i = 0; i < n; i++) d_weights[name][i] += (one.*of)[i];
    };
    add_up(NORM_1, s.C, &Parts::norm_1), add_up(NORM_2, s.C, &Parts::norm_2);
    if (s.normalizes) add_up(Q_NORM, s.D, &Parts::q_norm), add_up(K_NORM, s.D, &Parts::k_norm);
}

// What all need: packed matrices, and each thread's scratch.
struct Common {
    Bf16* packed[N_JOINTS];
    std::vector<Scratch> scratch;

    Common(const Layout& l, Room& room, int n_threads) {
        for (int i = 0; i < N_JOINTS; i++) room.take(packed[i], l.size(Joint(i)));
        for (int i = 0; i < n_threads; i++) scratch.emplace_back(l.s, room);
    }
};

template <typename Of, typename Sized>
std::vector<Of> for_each_window(const Sized& sized, int n, Room& room) {
    std::vector<Of> found;
    for (int i = 0; i < n; i++) found.emplace_back(sized, room);
    return found;
}

Sizes sizes_of(const int32_t* given, float eps, bool normalizes) {
    return {given[0], given[1], given[2], given[3], given[4], given[5], given[6], eps, normalizes};
}

Input input_of(const float* const* weights, const float* x, const float* rope, int64_t sines) {
    Input in{{}, x, rope, long(sines)};
    std::copy_n(weights, int(N_WEIGHTS), in.weights);
    return in;
}

}  // namespace

// How many bytes the forward pass leaves for the backward pass; `sizes` are n, T, C, H, G, D, F.
EXPORTED int64_t mame_block_kept(const int32_t* sizes, int32_t normalizes) {
    Room room(nullptr);
    for_each_window<Kept>(sizes_of(sizes, 0, normalizes), sizes[0], room);
    return int64_t(room.bytes());
}

// How many bytes of memory either pass needs beside.
EXPORTED int64_t mame_block_memory(const int32_t* sizes, int32_t normalizes, int32_t n_threads) {
    Room room(nullptr);
    Layout l(sizes_of(sizes, 0, normalizes));
    Common common(l, room, n_threads);
    for_each_window<Parts>(l, sizes[0], room);
    return int64_t(room.bytes());
}

// Fills `kept` and out (n, T, C). Weights are those of `Name`, those of norms null where there are none.
EXPORTED void mame_block(const int32_t* sizes, float eps, int32_t normalizes, const float* const* weights,
                         const float* x, const float* rope, int64_t sines, void* kept, float* out, void* memory,
                         int32_t n_threads) {
    Layout l(sizes_of(sizes, eps, normalizes));
    Input in = input_of(weights, x, rope, sines);
    Room room(memory), of_kept(kept);
    Common common(l, room, n_threads);
    auto windows = for_each_window<Kept>(l.s, l.s.n, of_kept);
    Team::run(n_threads, [&](Team& team, int me) {
        Tiles tiles;
        const Scratch& m = common.scratch[size_t(me)];
        pack(l, in, true, common.packed, m.staged, team);
        team.share(l.s.n, [&](int i) {
            size_t at = size_t(i) * l.s.T * l.s.C;
            forward(l, in, common.packed, windows[size_t(i)], m, x + at, out + at);
        });
    });
}

// Fills dx and d_weights, which have the shapes of x and the weights.
EXPORTED void mame_block_backward(const int32_t* sizes, float eps, int32_t normalizes, const float* const* weights,
                                  const float* x, const float* rope, int64_t sines, void* kept, const float* d_out,
                                  float* dx, float* const* d_weights, void* memory, int32_t n_threads) {
    Layout l(sizes_of(sizes, eps, normalizes));
    Input in = input_of(weights, x, rope, sines);
    Room room(memory), of_kept(kept);
    Common common(l, room, n_threads);
    auto windows = for_each_window<Kept>(l.s, l.s.n, of_kept);
    auto parts = for_each_window<Parts>(l, l.s.n, room);
    Team::run(n_threads, [&](Team& team, int me) {
        Tiles tiles;
        const Scratch& m = common.scratch[size_t(me)];
        pack(l, in, false, common.packed, m.staged, team);
        team.share(l.s.n, [&](int i) {
            size_t at = size_t(i) * l.s.T * l.s.C;
            backward(l, in, common.packed, windows[size_t(i)], m, parts[size_t(i)], x + at, d_out + at, dx + at);
        });
        share_rows(l, team, [&](const Matrix& matrix, int r) {
            gradient_of_matrix(l, matrix, r, parts, m.wide, d_weights[matrix.name]);
        });
        team.share(1, [&](int) { gradients_of_norms(l.s, parts, d_weights); });
    });
}
