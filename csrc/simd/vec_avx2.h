// Eight floats in a ymm register: AVX2, FMA and F16C.
#pragma once

#include <immintrin.h>

namespace unrain::UNRAIN_TIER {

struct Vec {
    static constexpr int kLanes = 8;
    __m256 v;
};

struct Mask {
    __m256 m;
};

UNRAIN_HD Vec set1(float x) { return {_mm256_set1_ps(x)}; }
UNRAIN_HD Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
UNRAIN_HD void store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
UNRAIN_HD void stream(float* p, Vec a) { _mm256_stream_ps(p, a.v); }
UNRAIN_HD void end_streaming() { _mm_sfence(); }
UNRAIN_HD Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
UNRAIN_HD Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
UNRAIN_HD Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
UNRAIN_HD Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
UNRAIN_HD Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
UNRAIN_HD Vec fnma(Vec a, Vec b, Vec c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
UNRAIN_HD Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }
UNRAIN_HD Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }
UNRAIN_HD Vec sqrt(Vec a) { return {_mm256_sqrt_ps(a.v)}; }
UNRAIN_HD Vec abs(Vec a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0F), a.v)}; }
UNRAIN_HD Vec round_even(Vec a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
UNRAIN_HD Vec round_down(Vec a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)}; }
UNRAIN_HD Vec select(Mask k, Vec yes, Vec no) { return {_mm256_blendv_ps(no.v, yes.v, k.m)}; }
UNRAIN_HD Mask less(Vec a, Vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
UNRAIN_HD Vec scale_by_power(Vec a, Vec n) {
    const __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127));
    return {_mm256_mul_ps(a.v, _mm256_castsi256_ps(_mm256_slli_epi32(e, 23)))};
}
UNRAIN_HD float sum(Vec a) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

UNRAIN_HD Vec load(const bf16* p) {
    const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16))};
}
UNRAIN_HD void store(bf16* p, Vec a) {
    const __m256i bits = _mm256_castps_si256(a.v);
    const __m256i lsb = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(lsb, _mm256_set1_epi32(0x7FFF)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q));
    const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}
UNRAIN_HD Vec load(const f16* p) { return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}; }
UNRAIN_HD void store(f16* p, Vec a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
UNRAIN_HD Vec load(const std::uint8_t* p) {
    const __m128i b = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(b))};
}
UNRAIN_HD void store(std::uint8_t* p, Vec a) {
    const __m256i i = _mm256_cvttps_epi32(a.v);
    const __m128i w = _mm_packus_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(w, w));
}

UNRAIN_HD void deinterleave(Vec a, Vec b, Vec& even, Vec& odd) {
    const __m256 lo = _mm256_permute2f128_ps(a.v, b.v, 0x20);
    const __m256 hi = _mm256_permute2f128_ps(a.v, b.v, 0x31);
    even.v = _mm256_shuffle_ps(lo, hi, 0x88);
    odd.v = _mm256_shuffle_ps(lo, hi, 0xDD);
}
UNRAIN_HD void interleave(Vec even, Vec odd, Vec& a, Vec& b) {
    const __m256 lo = _mm256_unpacklo_ps(even.v, odd.v);
    const __m256 hi = _mm256_unpackhi_ps(even.v, odd.v);
    a.v = _mm256_permute2f128_ps(lo, hi, 0x20);
    b.v = _mm256_permute2f128_ps(lo, hi, 0x31);
}
UNRAIN_HD void transpose(Vec (&r)[8]) {
    __m256 t[8];
    for (int i = 0; i < 4; ++i) {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i].v, r[2 * i + 1].v);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i].v, r[2 * i + 1].v);
    }
    __m256 s[8];
    for (int i = 0; i < 2; ++i) {
        s[4 * i + 0] = _mm256_shuffle_ps(t[4 * i + 0], t[4 * i + 2], 0x44);
        s[4 * i + 1] = _mm256_shuffle_ps(t[4 * i + 0], t[4 * i + 2], 0xEE);
        s[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
        s[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xEE);
    }
    for (int i = 0; i < 4; ++i) {
        r[i].v = _mm256_permute2f128_ps(s[i], s[i + 4], 0x20);
        r[i + 4].v = _mm256_permute2f128_ps(s[i], s[i + 4], 0x31);
    }
}

}  // namespace unrain::UNRAIN_TIER
