// Memory that the caller gives, cut into arrays that begin on lines of the cache; without memory, how much is needed.
#pragma once

#include <cstddef>
#include <cstdint>

constexpr size_t LINE = 64;

class Room {
  public:
    explicit Room(void* memory) : memory(static_cast<char*>(memory)) {}

    template <typename T>
    void take(T*& array, size_t n) {
        array = memory ? reinterpret_cast<T*>(memory + taken) : nullptr;
        taken += (n * sizeof(T) + LINE - 1) / LINE * LINE;
    }
    size_t bytes() const { return taken; }

  private:
    char* memory;
    size_t taken = 0;
};
