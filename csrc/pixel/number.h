// What the per-pixel functors need of a number, for plain floats. simd/vec.h offers the same for vectors: a functor
// written once then serves the C++ loops and the CUDA kernels, and gives both the same bits.
#pragma once

#include "../simd/scalar.h"

#if !defined(__CUDACC__) && !defined(__CUDACC_RTC__)
#include <cmath>
#endif

namespace unrain::UNRAIN_TIER {

template <class T>
UNRAIN_HD T constant(float x);
template <>
UNRAIN_HD float constant<float>(float x) {
    return x;
}

UNRAIN_HD float min(float a, float b) { return a < b ? a : b; }
UNRAIN_HD float max(float a, float b) { return a > b ? a : b; }
UNRAIN_HD float round_even(float x) {
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
    return rintf(x);
#else
    return std::nearbyintf(x);
#endif
}
UNRAIN_HD float round_down(float x) {
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
    return floorf(x);
#else
    return std::floor(x);
#endif
}

// dcb|abcd|cba: any distance outside, down to a single pixel.
UNRAIN_HD std::ptrdiff_t reflect(std::ptrdiff_t i, std::ptrdiff_t length) {
    if (i >= 0 && i < length) return i;  // nearly always, and a remainder is slow
    const std::ptrdiff_t period = length > 1 ? 2 * length - 2 : 1;
    i %= period;
    if (i < 0) i += period;
    return i < length ? i : period - i;
}

}  // namespace unrain::UNRAIN_TIER
