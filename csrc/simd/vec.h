// The vector type every CPU kernel is written against. A tier's translation unit defines UNRAIN_TIER (its namespace)
// and UNRAIN_SIMD_* before it includes this; the kernels below it are compiled once per tier.
#pragma once

#include "../pixel/number.h"
#include "../storage.h"
#include "scalar.h"

#if defined(UNRAIN_SIMD_AVX512)
#include "vec_avx512.h"
#elif defined(UNRAIN_SIMD_AVX2)
#include "vec_avx2.h"
#elif defined(UNRAIN_SIMD_NEON)
#include "vec_neon.h"
#else
#include "vec_generic.h"
#endif

namespace unrain::UNRAIN_TIER {

constexpr int kLanes = Vec::kLanes;
using Index = std::ptrdiff_t;

UNRAIN_HD Vec zero() { return set1(0.0F); }
template <>
UNRAIN_HD Vec constant<Vec>(float x) {
    return set1(x);
}

// The first n lanes (0 < n < kLanes); the rest read as zero and are not touched in memory.
template <class T>
UNRAIN_HD Vec load_first(const T* p, Index n) {
    T lanes[kLanes] = {};
    std::memcpy(lanes, p, static_cast<std::size_t>(n) * sizeof(T));
    return load(lanes);
}
template <class T>
UNRAIN_HD void store_first(T* p, Vec a, Index n) {
    T lanes[kLanes];
    store(lanes, a);
    std::memcpy(p, lanes, static_cast<std::size_t>(n) * sizeof(T));
}

template <class T>
UNRAIN_HD Vec load_lanes(const T* p, Index n) {
    return n >= kLanes ? load(p) : load_first(p, n);
}
template <class T>
UNRAIN_HD void store_lanes(T* p, Vec a, Index n) {
    if (n >= kLanes) {
        store(p, a);
    } else {
        store_first(p, a, n);
    }
}

// Whether an array is best written past the caches: too large to be found in them later, and on a vector's boundary.
// `stream` then takes the place of `store` for whole vectors, and `end_streaming` comes before others may read.
template <class T>
UNRAIN_HD bool worth_streaming(const T* p, Index count) {
    constexpr Index kLarge = 8 << 20;
    const auto address = reinterpret_cast<std::uintptr_t>(p);
    return sizeof(T) == sizeof(float) && count > kLarge / static_cast<Index>(sizeof(T)) && address % (4 * kLanes) == 0;
}
UNRAIN_HD void stream(bf16* p, Vec a) { store(p, a); }

// Zero in the lanes from n on: for sums whose tail must not count.
UNRAIN_HD Vec keep_first(Vec a, Index n) {
    if (n >= kLanes) return a;
    float lanes[kLanes];
    store(lanes, a);
    return load_first(lanes, n);
}

UNRAIN_HD Index least(Index a, Index b) { return a < b ? a : b; }
UNRAIN_HD Index most(Index a, Index b) { return a > b ? a : b; }
UNRAIN_HD Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

}  // namespace unrain::UNRAIN_TIER
