// Parts of one block of memory, each 64 bytes aligned. Without a block it only counts: the same code first says how
// much is needed, and then takes it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace unrain::program {

constexpr std::size_t kPartAlignment = 64;

inline std::size_t aligned_bytes(std::size_t bytes) {
    return (bytes + kPartAlignment - 1) / kPartAlignment * kPartAlignment;
}

class Carver {
public:
    explicit Carver(void* block) : block_(static_cast<char*>(block)) {}

    // Null where it only counts.
    template <class T>
    T* take(std::size_t count) {
        char* part = block_ == nullptr ? nullptr : block_ + used_;
        used_ += aligned_bytes(count * sizeof(T));
        return reinterpret_cast<T*>(part);
    }
    std::size_t used() const { return used_; }

private:
    char* block_;
    std::size_t used_ = 0;
};

}  // namespace unrain::program
