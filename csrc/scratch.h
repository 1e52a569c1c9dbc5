// Working memory of one call, aligned to a cache line; empty when the machine has none left.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace unrain::UNRAIN_TIER {

template <class T>
class Scratch {
public:
    explicit Scratch(std::size_t count) : block_(std::malloc(count * sizeof(T) + kAlign)) {}
    ~Scratch() { std::free(block_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

    bool failed() const { return block_ == nullptr; }
    T* data() const {
        const auto address = reinterpret_cast<std::uintptr_t>(block_);
        return reinterpret_cast<T*>((address + kAlign - 1) / kAlign * kAlign);
    }

private:
    static constexpr std::size_t kAlign = 64;
    void* block_;
};

constexpr const char* kNoMemory = "not enough memory for the working buffers";

}  // namespace unrain::UNRAIN_TIER
