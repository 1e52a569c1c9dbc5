// What convolutions multiply: float32 numbers, or pairs of bfloat16 where the machine has products of those.
#pragma once

#include "../simd/vec.h"

#if defined(UNRAIN_DOT_BF16) && defined(UNRAIN_SIMD_AVX512)
#include <immintrin.h>
#endif

#if defined(__clang__)
#define UNRAIN_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define UNRAIN_UNROLL _Pragma("GCC unroll 16")
#else
#define UNRAIN_UNROLL
#endif

namespace unrain::UNRAIN_TIER {

// Asks for the cache lines of `bytes` from p on; a hint, and no access.
UNRAIN_HD void prefetch(const void* p, Index bytes) {
#if defined(__GNUC__)
    constexpr Index kLine = 64;
    for (Index at = 0; at < bytes; at += kLine) __builtin_prefetch(static_cast<const char*>(p) + at, 0, 3);
#else
    (void)p, (void)bytes;
#endif
}

// Vectors of sums for 16 outputs that stay in registers. AVX-512, which has 32 like NEON, takes 32 outputs.
#if defined(UNRAIN_SIMD_NEON)
constexpr Index kSumVectors = 24;
#else
constexpr Index kSumVectors = 12;
#endif

// How many inputs one product takes.
template <class V>
constexpr Index kDepthOf = sizeof(V) == sizeof(bf16) ? 2 : 1;

UNRAIN_HD void put(float* p, Vec a) { store(p, a); }
UNRAIN_HD Vec load_outputs(const float* p) { return load(p); }
UNRAIN_HD Vec repeat(const float* p) { return set1(*p); }
UNRAIN_HD Vec multiply_add(Vec a, Vec b, Vec c) { return fma(a, b, c); }

#if defined(UNRAIN_DOT_BF16) && defined(UNRAIN_SIMD_NEON)
using Value = bf16;
UNRAIN_HD void put(bf16* p, Vec a) { vst1_u16(&p->bits, vreinterpret_u16_bf16(vcvt_bf16_f32(a.v))); }
struct Pairs {
    bfloat16x8_t v;
};
UNRAIN_HD Pairs load_outputs(const bf16* p) { return {vreinterpretq_bf16_u16(vld1q_u16(&p->bits))}; }
UNRAIN_HD Pairs repeat(const bf16* p) {
    std::uint32_t both;
    std::memcpy(&both, p, sizeof(both));
    return {vreinterpretq_bf16_u32(vdupq_n_u32(both))};
}
UNRAIN_HD Vec multiply_add(Pairs a, Pairs b, Vec c) { return {vbfdotq_f32(c.v, a.v, b.v)}; }
#elif defined(UNRAIN_DOT_BF16)
using Value = bf16;
UNRAIN_HD void put(bf16* p, Vec a) {  // in one instruction
    const __m256bh half = _mm512_cvtneps_pbh(a.v);
    std::memcpy(p, &half, sizeof(half));
}
struct Pairs {
    __m512i v;
};
UNRAIN_HD Pairs load_outputs(const bf16* p) { return {_mm512_loadu_si512(p)}; }
UNRAIN_HD Pairs repeat(const bf16* p) {
    std::int32_t both;
    std::memcpy(&both, p, sizeof(both));
    return {_mm512_set1_epi32(both)};
}
UNRAIN_HD Vec multiply_add(Pairs a, Pairs b, Vec c) { return {_mm512_dpbf16_ps(c.v, (__m512bh)a.v, (__m512bh)b.v)}; }
#else
using Value = float;
UNRAIN_HD void put(bf16* p, Vec a) { store(p, a); }
#endif

constexpr Index kDepth = kDepthOf<Value>;

}  // namespace unrain::UNRAIN_TIER
