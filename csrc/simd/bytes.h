// Three interleaved bytes per pixel to three planes and back: shuffles where the machine has them.
#pragma once

#include "vec.h"

namespace unrain::UNRAIN_TIER {

#if defined(UNRAIN_SIMD_AVX2) || defined(UNRAIN_SIMD_AVX512)

// Byte i of plane c is byte 3 i + c of the 48: which of them lie in register r, and where (0x80 gives zero).
struct SplitTable {
    alignas(16) unsigned char take[3][3][16];  // [plane][register]
    alignas(16) unsigned char put[3][3][16];   // [register][plane]
};

constexpr SplitTable make_split_table() {
    SplitTable t{};
    for (int c = 0; c < 3; ++c) {
        for (int r = 0; r < 3; ++r) {
            for (int i = 0; i < 16; ++i) {
                const int from = 3 * i + c - 16 * r;
                t.take[c][r][i] = static_cast<unsigned char>(from >= 0 && from < 16 ? from : 0x80);
                const int whole = 16 * r + i;
                t.put[r][c][i] = static_cast<unsigned char>(whole % 3 == c ? whole / 3 : 0x80);
            }
        }
    }
    return t;
}

constexpr SplitTable kSplit = make_split_table();

UNRAIN_HD __m128i shuffled(const __m128i (&from)[3], const unsigned char (&masks)[3][16]) {
    __m128i r = _mm_setzero_si128();
    for (int k = 0; k < 3; ++k) {
        const __m128i mask = _mm_load_si128(reinterpret_cast<const __m128i*>(masks[k]));
        r = _mm_or_si128(r, _mm_shuffle_epi8(from[k], mask));
    }
    return r;
}

constexpr Index kPixelsAtOnce = 16;

UNRAIN_HD void split_block(const std::uint8_t* pixels, std::uint8_t* const (&planes)[3], Index at) {
    __m128i in[3];
    for (int r = 0; r < 3; ++r) in[r] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(pixels + 3 * at + 16 * r));
    for (int c = 0; c < 3; ++c) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(planes[c] + at), shuffled(in, kSplit.take[c]));
    }
}
UNRAIN_HD void join_block(const std::uint8_t* const (&planes)[3], std::uint8_t* pixels, Index at) {
    __m128i in[3];
    for (int c = 0; c < 3; ++c) in[c] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(planes[c] + at));
    for (int r = 0; r < 3; ++r) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(pixels + 3 * at + 16 * r), shuffled(in, kSplit.put[r]));
    }
}

#elif defined(UNRAIN_SIMD_NEON)

constexpr Index kPixelsAtOnce = 16;

UNRAIN_HD void split_block(const std::uint8_t* pixels, std::uint8_t* const (&planes)[3], Index at) {
    const uint8x16x3_t in = vld3q_u8(pixels + 3 * at);
    for (int c = 0; c < 3; ++c) vst1q_u8(planes[c] + at, in.val[c]);
}
UNRAIN_HD void join_block(const std::uint8_t* const (&planes)[3], std::uint8_t* pixels, Index at) {
    const uint8x16x3_t out = {{vld1q_u8(planes[0] + at), vld1q_u8(planes[1] + at), vld1q_u8(planes[2] + at)}};
    vst3q_u8(pixels + 3 * at, out);
}

#else

constexpr Index kPixelsAtOnce = 1;

UNRAIN_HD void split_block(const std::uint8_t* pixels, std::uint8_t* const (&planes)[3], Index at) {
    for (int c = 0; c < 3; ++c) planes[c][at] = pixels[3 * at + c];
}
UNRAIN_HD void join_block(const std::uint8_t* const (&planes)[3], std::uint8_t* pixels, Index at) {
    for (int c = 0; c < 3; ++c) pixels[3 * at + c] = planes[c][at];
}

#endif

inline void split_pixels(const std::uint8_t* pixels, std::uint8_t* const (&planes)[3], Index count) {
    Index at = 0;
    for (; at + kPixelsAtOnce <= count; at += kPixelsAtOnce) split_block(pixels, planes, at);
    for (; at < count; ++at) {
        for (int c = 0; c < 3; ++c) planes[c][at] = pixels[3 * at + c];
    }
}

inline void join_pixels(const std::uint8_t* const (&planes)[3], std::uint8_t* pixels, Index count) {
    Index at = 0;
    for (; at + kPixelsAtOnce <= count; at += kPixelsAtOnce) join_block(planes, pixels, at);
    for (; at < count; ++at) {
        for (int c = 0; c < 3; ++c) pixels[3 * at + c] = planes[c][at];
    }
}

}  // namespace unrain::UNRAIN_TIER
