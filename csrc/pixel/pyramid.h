// The arithmetic of one pixel of a pyramid level: the same in the C++ loops (on vectors) and in the CUDA kernels.
#pragma once

#include "number.h"

namespace unrain::UNRAIN_TIER {

// 1 4 6 4 1, still to be divided by 16: the sum of small whole numbers times bytes stays exact.
template <class T>
UNRAIN_HD T binomial(T a, T b, T c, T d, T e) {
    return (a + e) + constant<T>(4.0F) * (b + d) + constant<T>(6.0F) * c;
}

// The value of a level out of a sum over `weight` units of pixel; a byte is rounded half up.
template <class T>
UNRAIN_HD T level_value(T sum, T weight, bool byte) {
    const T mean = sum / weight;
    return byte ? round_down(mean + constant<T>(0.5F)) : mean;
}

// Which outputs of a halving read input `position`, and with what weight: at most three in a row, borders included.
struct Readers {
    std::ptrdiff_t first = 0;
    int count = 0;
    float weight[5] = {};

    UNRAIN_HD Readers(std::ptrdiff_t position, std::ptrdiff_t length) {
        if (position >= 4 && position + 4 < length) {
            const bool even = position % 2 == 0;
            first = even ? position / 2 - 1 : position / 2;
            count = even ? 3 : 2;
            weight[0] = even ? 1.0F / 16.0F : 4.0F / 16.0F;
            weight[1] = even ? 6.0F / 16.0F : 4.0F / 16.0F;
            weight[2] = even ? 1.0F / 16.0F : 0.0F;
            return;
        }
        const float taps[5] = {1.0F / 16.0F, 4.0F / 16.0F, 6.0F / 16.0F, 4.0F / 16.0F, 1.0F / 16.0F};
        const std::ptrdiff_t half = (length + 1) / 2, centre = position / 2;
        const std::ptrdiff_t from = centre > 2 ? centre - 2 : 0, to = centre + 3 < half ? centre + 3 : half;
        first = from;
        count = static_cast<int>(to - from);
        for (std::ptrdiff_t j = from; j < to; ++j) {
            for (int k = 0; k < 5; ++k) {
                if (reflect(2 * j + k - 2, length) == position) weight[j - from] += taps[k];
            }
        }
        while (count > 0 && !(weight[count - 1] > 0.0F)) --count;
        while (count > 0 && !(weight[0] > 0.0F)) {
            for (int k = 0; k + 1 < count; ++k) weight[k] = weight[k + 1];
            ++first;
            --count;
        }
    }
};

}  // namespace unrain::UNRAIN_TIER
