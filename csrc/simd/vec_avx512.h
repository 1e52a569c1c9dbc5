// Sixteen floats in a zmm register: AVX-512 F, BW, DQ and VL.
#pragma once

#include <immintrin.h>

namespace unrain::UNRAIN_TIER {

struct Vec {
    static constexpr int kLanes = 16;
    __m512 v;
};

struct Mask {
    __mmask16 m;
};

UNRAIN_HD Vec set1(float x) { return {_mm512_set1_ps(x)}; }
UNRAIN_HD Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
UNRAIN_HD void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
UNRAIN_HD void stream(float* p, Vec a) { _mm512_stream_ps(p, a.v); }
UNRAIN_HD void end_streaming() { _mm_sfence(); }
UNRAIN_HD Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
UNRAIN_HD Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
UNRAIN_HD Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
UNRAIN_HD Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
UNRAIN_HD Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
UNRAIN_HD Vec fnma(Vec a, Vec b, Vec c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
UNRAIN_HD Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
UNRAIN_HD Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
UNRAIN_HD Vec sqrt(Vec a) { return {_mm512_sqrt_ps(a.v)}; }
UNRAIN_HD Vec abs(Vec a) { return {_mm512_abs_ps(a.v)}; }
UNRAIN_HD Vec round_even(Vec a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
UNRAIN_HD Vec round_down(Vec a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)}; }
UNRAIN_HD Vec select(Mask k, Vec yes, Vec no) { return {_mm512_mask_blend_ps(k.m, no.v, yes.v)}; }
UNRAIN_HD Mask less(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
UNRAIN_HD Vec scale_by_power(Vec a, Vec n) { return {_mm512_scalef_ps(a.v, n.v)}; }
UNRAIN_HD float sum(Vec a) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

UNRAIN_HD Vec load(const bf16* p) {
    const __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))};
}
UNRAIN_HD void store(bf16* p, Vec a) {
    const __m512i bits = _mm512_castps_si512(a.v);
    const __m512i lsb = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(lsb, _mm512_set1_epi32(0x7FFF)));
    const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
    const __m512i kept = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16)));
}
UNRAIN_HD Vec load(const f16* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
UNRAIN_HD void store(f16* p, Vec a) {
    const __m256i h = _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), h);
}
UNRAIN_HD Vec load(const std::uint8_t* p) {
    const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(b))};
}
UNRAIN_HD void store(std::uint8_t* p, Vec a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtusepi32_epi8(_mm512_cvttps_epi32(a.v)));
}

UNRAIN_HD void deinterleave(Vec a, Vec b, Vec& even, Vec& odd) {
    const __m512i e = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    even.v = _mm512_permutex2var_ps(a.v, e, b.v);
    odd.v = _mm512_permutex2var_ps(a.v, _mm512_add_epi32(e, _mm512_set1_epi32(1)), b.v);
}
UNRAIN_HD void interleave(Vec even, Vec odd, Vec& a, Vec& b) {
    const __m512i lo = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    a.v = _mm512_permutex2var_ps(even.v, lo, odd.v);
    b.v = _mm512_permutex2var_ps(even.v, _mm512_add_epi32(lo, _mm512_set1_epi32(8)), odd.v);
}
UNRAIN_HD void transpose(Vec (&r)[16]) {
    __m512 t[16];
    for (int i = 0; i < 8; ++i) {
        t[2 * i] = _mm512_unpacklo_ps(r[2 * i].v, r[2 * i + 1].v);
        t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i].v, r[2 * i + 1].v);
    }
    __m512 s[16];  // s[4q + k]: rows 4q .. 4q+3, columns k, k+4, k+8, k+12, one per 128-bit lane
    for (int q = 0; q < 4; ++q) {
        s[4 * q + 0] = _mm512_shuffle_ps(t[4 * q + 0], t[4 * q + 2], 0x44);
        s[4 * q + 1] = _mm512_shuffle_ps(t[4 * q + 0], t[4 * q + 2], 0xEE);
        s[4 * q + 2] = _mm512_shuffle_ps(t[4 * q + 1], t[4 * q + 3], 0x44);
        s[4 * q + 3] = _mm512_shuffle_ps(t[4 * q + 1], t[4 * q + 3], 0xEE);
    }
    for (int k = 0; k < 4; ++k) {
        const __m512 a = _mm512_shuffle_f32x4(s[k], s[k + 4], 0x88);       // columns k, k+8 of rows 0-3, 4-7
        const __m512 b = _mm512_shuffle_f32x4(s[k], s[k + 4], 0xDD);       // columns k+4, k+12
        const __m512 c = _mm512_shuffle_f32x4(s[k + 8], s[k + 12], 0x88);  // rows 8-11, 12-15
        const __m512 d = _mm512_shuffle_f32x4(s[k + 8], s[k + 12], 0xDD);
        r[k].v = _mm512_shuffle_f32x4(a, c, 0x88);
        r[k + 8].v = _mm512_shuffle_f32x4(a, c, 0xDD);
        r[k + 4].v = _mm512_shuffle_f32x4(b, d, 0x88);
        r[k + 12].v = _mm512_shuffle_f32x4(b, d, 0xDD);
    }
}

}  // namespace unrain::UNRAIN_TIER
