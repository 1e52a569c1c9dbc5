// How long the last frames took, in constant memory.
#pragma once

#include <algorithm>
#include <cstdint>

namespace unrain::library {

class Latencies {
public:
    void add(long long microseconds) {
        constexpr long long kMost = UINT32_MAX;
        last_[count_++ % kWindow] = static_cast<std::uint32_t>(std::min(microseconds, kMost));
        longest_ = std::max(longest_, microseconds);
    }

    // Of the window, the one that so many of a hundred do not exceed.
    long long quantile(unsigned hundredths) const {
        const unsigned long long known = std::min<unsigned long long>(count_, kWindow);
        if (known == 0) return 0;
        std::uint32_t sorted[kWindow];
        std::copy(last_, last_ + known, sorted);
        const unsigned long long rank = (known * hundredths + 99) / 100 - 1;
        std::nth_element(sorted, sorted + rank, sorted + known);
        return sorted[rank];
    }

    long long longest() const { return longest_; }

private:
    static constexpr unsigned kWindow = 4096;
    std::uint32_t last_[kWindow];
    unsigned long long count_ = 0;
    long long longest_ = 0;
};

}  // namespace unrain::library
