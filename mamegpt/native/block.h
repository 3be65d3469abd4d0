// A block of Qwen3 or Llama: its sizes, its weights, and the arrays of one computation.
//
// n windows of T positions, padded to P, a multiple of 32; C hidden size, H heads of queries over G heads of keys and
// values, D wide each (C and D multiples of 32), F feed-forward width, padded to E. What rows
// beyond T contain has no effect: they are zero in every gradient, and no position before them attends to them.
#pragma once

#include "product_bf16.h"
#include "room.h"

struct Sizes {
    int n, T, C, H, G, D, F;
    float eps;
    bool normalizes;  // queries and keys, as Qwen3 does

    int P() const { return round_up(T, 32); }
    int E() const { return round_up(F, 32); }
    int Q() const { return H * D; }
    int KV() const { return G * D; }
    int QKV() const { return Q() + 2 * KV(); }
};

enum Name { NORM_1, Q_PROJ, K_PROJ, V_PROJ, Q_NORM, K_NORM, O_PROJ, NORM_2, GATE, UP, DOWN, N_WEIGHTS };

// Matrices that are multiplied as one: queries, keys and values; output; gate and up; down.
enum Joint { QKV_JOINT, O_JOINT, GATE_UP_JOINT, DOWN_JOINT, N_JOINTS };

struct Matrix {  // (out, in), rows `first` ... of a joint one
    Name name;
    Joint joint;
    int out, in, first;
};

struct Layout {
    Sizes s;
    Matrix matrices[7];
    int out[N_JOINTS], in[N_JOINTS];  // sizes of the joint matrices, multiples of 32

    explicit Layout(const Sizes& s)
        : s(s),
          matrices{{Q_PROJ, QKV_JOINT, s.Q(), s.C, 0},
                   {K_PROJ, QKV_JOINT, s.KV(), s.C, s.Q()},
                   {V_PROJ, QKV_JOINT, s.KV(), s.C, s.Q() + s.KV()},
                   {O_PROJ, O_JOINT, s.C, s.Q(), 0},
                   {GATE, GATE_UP_JOINT, s.F, s.C, 0},
                   {UP, GATE_UP_JOINT, s.F, s.C, s.E()},
                   {DOWN, DOWN_JOINT, s.C, s.F, 0}},
          out{s.QKV(), s.C, 2 * s.E(), s.C},
          in{s.C, s.Q(), s.C, s.E()} {}

    bool widens(Joint joint) const { return in[joint] < out[joint]; }
    size_t size(Joint joint) const { return size_t(out[joint]) * in[joint]; }
};

// What the forward pass of one window leaves for the backward pass.
struct Kept {
    float *scale_1, *scale_2, *head_scales;  // (P,), (P,), (P, H + G): factors of the norms
    Bf16 *qk, *qkv;                          // (P, Q + KV) before the norms; (P, QKV) normalized and rotated
    Bf16 *p, *o, *gate_up;                   // [H][keys][queries], (P, Q), (P, 2 E)
    float* middle;                           // (P, C), between attention and feed-forward

    Kept(const Sizes& s, Room& room) {
        size_t P = size_t(s.P());
        room.take(scale_1, P), room.take(scale_2, P), room.take(head_scales, P * (s.H + s.G));
        room.take(qk, s.normalizes ? P * (s.Q() + s.KV()) : 0), room.take(qkv, P * s.QKV()), room.take(p, s.H * P * P);
        room.take(o, P * s.Q()), room.take(gate_up, P * 2 * s.E()), room.take(middle, P * s.C);
    }
};

// What one thread needs for a window.
struct Scratch {
    Bf16 *hidden, *narrow_bf16, *wide_bf16;               // (P, C), (P, C), (P, widest)
    Bf16 *act, *d_o, *d_scores;                           // (P, E), (P, Q), (P, P)
    Bf16 *across, *pairs_of_q, *pairs_1, *pairs_2;        // of a head: (D, P), and (D, P) or (P, D) in pairs
    Bf16 *pairs_of_p, *staged;                            // of 32 queries; 32 rows of a matrix
    float *wide, *narrow, *d_qkv;                         // (P, widest), (P, C), (P, QKV)
    float *scores, *o_across, *dots;                      // (P, 32), (D, 32), (P,)

    Scratch(const Sizes& s, Room& room) {
        size_t P = size_t(s.P()), widest = size_t(std::max(std::max(2 * s.E(), s.QKV()), s.C)), head = P * s.D;
        room.take(hidden, P * s.C), room.take(narrow_bf16, P * s.C), room.take(wide_bf16, P * widest);
        room.take(act, P * s.E()), room.take(d_o, P * s.Q()), room.take(d_scores, P * P);
        room.take(across, head), room.take(pairs_of_q, head), room.take(pairs_1, head), room.take(pairs_2, head);
        room.take(pairs_of_p, P * 32), room.take(staged, 32 * widest);
        room.take(wide, P * widest), room.take(narrow, P * s.C), room.take(d_qkv, P * s.QKV());
        room.take(scores, P * 32), room.take(o_across, size_t(s.D) * 32), room.take(dots, P);
    }
};
