// Tiles of AMX: 16 rows of 64 bytes each, eight of them, shared with whoever uses them next on this thread.
#pragma once

#include <atomic>

struct Tiles {  // sizes of the tiles, while this lives
    Tiles() {
        // Not on the stack: GCC thinks that the instruction reads eight bytes, and would leave the others unset.
        alignas(64) static const uint8_t sizes[64] = {
            1,  0,  0,  0,  0,  0,  0,  0,  0,  0, 0,  0, 0,  0, 0,  0,  // palette
            64, 0,  64, 0,  64, 0,  64, 0,  64, 0, 64, 0, 64, 0, 64, 0,  // bytes of a row, two bytes each
            0,  0,  0,  0,  0,  0,  0,  0,  0,  0, 0,  0, 0,  0, 0,  0,
            16, 16, 16, 16, 16, 16, 16, 16};  // rows
        _tile_loadconfig(sizes);
    }
    ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;
};

template <int R, int S>
static inline void tile(int K, Left a, const Bf16* b, long b_panel, float* c, long c_row, bool add) {
    constexpr bool down = R == 2, across = S == 2;
    const long a_bytes = a.row * long(sizeof(Bf16)), c_bytes = c_row * long(sizeof *c);
    float* below = c + 16 * c_row;
    std::atomic_signal_fence(std::memory_order_seq_cst);  // GCC does not know that the instructions below read memory
    if (add) {
        _tile_loadd(0, c, c_bytes);
        if constexpr (across) _tile_loadd(1, c + 16, c_bytes);
        if constexpr (down) _tile_loadd(2, below, c_bytes);
        if constexpr (down && across) _tile_loadd(3, below + 16, c_bytes);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int k = 0; k < K; k += 32, a.at += a.along) {
        _tile_loadd(4, a.at, a_bytes);
        _tile_loadd(6, b + k * 16, 64);
        if constexpr (across) _tile_loadd(7, b + b_panel + k * 16, 64);
        if constexpr (down) _tile_loadd(5, a.at + a.down, a_bytes);
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (across) _tile_dpbf16ps(1, 4, 7);
        if constexpr (down) _tile_dpbf16ps(2, 5, 6);
        if constexpr (down && across) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, c_bytes);
    if constexpr (across) _tile_stored(1, c + 16, c_bytes);
    if constexpr (down) _tile_stored(2, below, c_bytes);
    if constexpr (down && across) _tile_stored(3, below + 16, c_bytes);
}
