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

}  // namespace unrain::UNRAIN_TIER
