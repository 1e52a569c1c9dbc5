// Four plain floats: what any compiler turns into whatever the baseline of the machine has.
#pragma once

#include <cmath>

namespace unrain::UNRAIN_TIER {

struct Vec {
    static constexpr int kLanes = 4;
    float v[4];
};

struct Mask {
    bool m[4];
};

#define UNRAIN_LANES(expr)        \
    Vec r;                        \
    for (int i = 0; i < 4; ++i) { \
        r.v[i] = (expr);          \
    }                             \
    return r

UNRAIN_HD Vec set1(float x) { UNRAIN_LANES(x); }
UNRAIN_HD Vec load(const float* p) { UNRAIN_LANES(p[i]); }
UNRAIN_HD Vec load(const std::uint8_t* p) { UNRAIN_LANES(static_cast<float>(p[i])); }
UNRAIN_HD void store(float* p, Vec a) {
    for (int i = 0; i < 4; ++i) p[i] = a.v[i];
}
UNRAIN_HD void stream(float* p, Vec a) { store(p, a); }
UNRAIN_HD void end_streaming() {}
UNRAIN_HD Vec operator+(Vec a, Vec b) { UNRAIN_LANES(a.v[i] + b.v[i]); }
UNRAIN_HD Vec operator-(Vec a, Vec b) { UNRAIN_LANES(a.v[i] - b.v[i]); }
UNRAIN_HD Vec operator*(Vec a, Vec b) { UNRAIN_LANES(a.v[i] * b.v[i]); }
UNRAIN_HD Vec operator/(Vec a, Vec b) { UNRAIN_LANES(a.v[i] / b.v[i]); }
UNRAIN_HD Vec fma(Vec a, Vec b, Vec c) { UNRAIN_LANES(a.v[i] * b.v[i] + c.v[i]); }
UNRAIN_HD Vec fnma(Vec a, Vec b, Vec c) { UNRAIN_LANES(c.v[i] - a.v[i] * b.v[i]); }
UNRAIN_HD Vec min(Vec a, Vec b) { UNRAIN_LANES(a.v[i] < b.v[i] ? a.v[i] : b.v[i]); }
UNRAIN_HD Vec max(Vec a, Vec b) { UNRAIN_LANES(a.v[i] > b.v[i] ? a.v[i] : b.v[i]); }
UNRAIN_HD Vec sqrt(Vec a) { UNRAIN_LANES(std::sqrt(a.v[i])); }
UNRAIN_HD Vec abs(Vec a) { UNRAIN_LANES(std::fabs(a.v[i])); }
UNRAIN_HD Vec round_even(Vec a) { UNRAIN_LANES(std::nearbyintf(a.v[i])); }
UNRAIN_HD Vec round_down(Vec a) { UNRAIN_LANES(std::floor(a.v[i])); }
UNRAIN_HD Vec select(Mask k, Vec yes, Vec no) { UNRAIN_LANES(k.m[i] ? yes.v[i] : no.v[i]); }
UNRAIN_HD Mask less(Vec a, Vec b) {
    Mask r;
    for (int i = 0; i < 4; ++i) r.m[i] = a.v[i] < b.v[i];
    return r;
}
UNRAIN_HD Vec scale_by_power(Vec a, Vec n) {
    Vec r;
    for (int i = 0; i < 4; ++i) {
        // A NaN exponent comes with a NaN mantissa: any scale will do, but the conversion must be defined.
        const int e = n.v[i] == n.v[i] ? static_cast<int>(n.v[i]) : 0;
        const std::uint32_t bits = static_cast<std::uint32_t>(e + 127) << 23;
        float scale;
        std::memcpy(&scale, &bits, 4);
        r.v[i] = a.v[i] * scale;
    }
    return r;
}
UNRAIN_HD float sum(Vec a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }

UNRAIN_HD Vec load(const bf16* p) {
    Vec r;
    for (int i = 0; i < 4; ++i) {
        const std::uint32_t bits = static_cast<std::uint32_t>(p[i].bits) << 16;
        std::memcpy(&r.v[i], &bits, 4);
    }
    return r;
}
UNRAIN_HD void store(bf16* p, Vec a) {
    for (int i = 0; i < 4; ++i) p[i] = to_bf16(a.v[i]);
}
UNRAIN_HD Vec load(const f16* p) { UNRAIN_LANES(from_f16(p[i])); }
UNRAIN_HD void store(f16* p, Vec a) {
    for (int i = 0; i < 4; ++i) p[i] = to_f16(a.v[i]);
}
UNRAIN_HD void store(std::uint8_t* p, Vec a) {
    for (int i = 0; i < 4; ++i) p[i] = static_cast<std::uint8_t>(static_cast<int>(a.v[i]));
}

// even = a0 a2 b0 b2, odd = a1 a3 b1 b3
UNRAIN_HD void deinterleave(Vec a, Vec b, Vec& even, Vec& odd) {
    even = Vec{{a.v[0], a.v[2], b.v[0], b.v[2]}};
    odd = Vec{{a.v[1], a.v[3], b.v[1], b.v[3]}};
}
UNRAIN_HD void interleave(Vec even, Vec odd, Vec& a, Vec& b) {
    a = Vec{{even.v[0], odd.v[0], even.v[1], odd.v[1]}};
    b = Vec{{even.v[2], odd.v[2], even.v[3], odd.v[3]}};
}
UNRAIN_HD void transpose(Vec (&r)[4]) {
    for (int i = 0; i < 4; ++i) {
        for (int j = i + 1; j < 4; ++j) {
            const float t = r[i].v[j];
            r[i].v[j] = r[j].v[i];
            r[j].v[i] = t;
        }
    }
}

#undef UNRAIN_LANES

}  // namespace unrain::UNRAIN_TIER
