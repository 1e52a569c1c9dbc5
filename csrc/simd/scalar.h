// One number at a time: conversions to and from storage, for tails, tables and the generic tier.
// Everything lives in the tier's own namespace: an inline function compiled with AVX flags must never be the copy
// the linker keeps for a machine without AVX.
#pragma once

#include "../storage.h"

namespace unrain::UNRAIN_TIER {

UNRAIN_HD float from_bits(std::uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
UNRAIN_HD std::uint32_t to_bits(float x) {
    std::uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

UNRAIN_HD bf16 to_bf16(float x) {
    const std::uint32_t bits = to_bits(x);
    if (x != x) return {static_cast<std::uint16_t>((bits | 0x400000U) >> 16)};
    return {static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16)};
}

UNRAIN_HD float from_f16(f16 h) {
    const std::uint32_t sign = static_cast<std::uint32_t>(h.bits & 0x8000U) << 16;
    const std::uint32_t magnitude = h.bits & 0x7FFFU;
    if (magnitude >= 0x7C00U) return from_bits(sign | 0x7F800000U | (magnitude << 13));
    if (magnitude >= 0x0400U) return from_bits(sign | ((magnitude << 13) + (112U << 23)));
    const float subnormal = static_cast<float>(magnitude) * 0x1p-24F;
    return sign != 0 ? -subnormal : subnormal;
}

UNRAIN_HD f16 to_f16(float x) {
    const std::uint32_t bits = to_bits(x);
    const std::uint32_t sign = (bits >> 16) & 0x8000U;
    const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
    std::uint32_t half;
    if (magnitude > 0x7F800000U) {
        half = 0x7E00U | ((magnitude >> 13) & 0x3FFU);
    } else if (magnitude >= 0x477FF000U) {  // rounds to 65520 or more
        half = 0x7C00U;
    } else if (magnitude >= 0x38800000U) {
        half = (magnitude - (112U << 23) + 0xFFFU + ((magnitude >> 13) & 1U)) >> 13;
    } else if (magnitude < 0x33000000U) {  // under half the least subnormal
        half = 0;
    } else {
        // value = m * 2^(e - 150), to be counted in units of 2^-24, rounding half to even.
        const std::uint32_t shift = 126U - (magnitude >> 23);
        const std::uint32_t m = (magnitude & 0x7FFFFFU) | 0x800000U;
        const std::uint32_t floor = m >> shift;
        const std::uint32_t rest = m & ((1U << shift) - 1U);
        const std::uint32_t middle = 1U << (shift - 1U);
        half = floor + ((rest > middle || (rest == middle && (floor & 1U) != 0)) ? 1U : 0U);
    }
    return {static_cast<std::uint16_t>(sign | half)};
}

UNRAIN_HD float load_one(const float* p) { return *p; }
UNRAIN_HD float load_one(const bf16* p) { return from_bits(static_cast<std::uint32_t>(p->bits) << 16); }
UNRAIN_HD float load_one(const f16* p) { return from_f16(*p); }
UNRAIN_HD void store_one(float* p, float x) { *p = x; }
UNRAIN_HD void store_one(bf16* p, float x) { *p = to_bf16(x); }
UNRAIN_HD void store_one(f16* p, float x) { *p = to_f16(x); }
// A byte must already hold a whole number in 0..255.
UNRAIN_HD float load_one(const std::uint8_t* p) { return static_cast<float>(*p); }
UNRAIN_HD void store_one(std::uint8_t* p, float x) { *p = static_cast<std::uint8_t>(x); }

}  // namespace unrain::UNRAIN_TIER
