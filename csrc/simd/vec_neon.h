// Four floats in a NEON register (AArch64, where it is the baseline).
#pragma once

#include <arm_neon.h>

namespace unrain::UNRAIN_TIER {

struct Vec {
    static constexpr int kLanes = 4;
    float32x4_t v;
};

struct Mask {
    uint32x4_t m;
};

UNRAIN_HD Vec set1(float x) { return {vdupq_n_f32(x)}; }
UNRAIN_HD Vec load(const float* p) { return {vld1q_f32(p)}; }
UNRAIN_HD void store(float* p, Vec a) { vst1q_f32(p, a.v); }
UNRAIN_HD void stream(float* p, Vec a) { store(p, a); }
UNRAIN_HD void end_streaming() {}
UNRAIN_HD Vec operator+(Vec a, Vec b) { return {vaddq_f32(a.v, b.v)}; }
UNRAIN_HD Vec operator-(Vec a, Vec b) { return {vsubq_f32(a.v, b.v)}; }
UNRAIN_HD Vec operator*(Vec a, Vec b) { return {vmulq_f32(a.v, b.v)}; }
UNRAIN_HD Vec operator/(Vec a, Vec b) { return {vdivq_f32(a.v, b.v)}; }
UNRAIN_HD Vec fma(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
UNRAIN_HD Vec fnma(Vec a, Vec b, Vec c) { return {vfmsq_f32(c.v, a.v, b.v)}; }
UNRAIN_HD Vec select(Mask k, Vec yes, Vec no) { return {vbslq_f32(k.m, yes.v, no.v)}; }
UNRAIN_HD Mask less(Vec a, Vec b) { return {vcltq_f32(a.v, b.v)}; }
// As on x86: the second operand where either is NaN.
UNRAIN_HD Vec min(Vec a, Vec b) { return select(less(a, b), a, b); }
UNRAIN_HD Vec max(Vec a, Vec b) { return select(less(b, a), a, b); }
UNRAIN_HD Vec sqrt(Vec a) { return {vsqrtq_f32(a.v)}; }
UNRAIN_HD Vec abs(Vec a) { return {vabsq_f32(a.v)}; }
UNRAIN_HD Vec round_even(Vec a) { return {vrndnq_f32(a.v)}; }
UNRAIN_HD Vec round_down(Vec a) { return {vrndmq_f32(a.v)}; }
UNRAIN_HD Vec scale_by_power(Vec a, Vec n) {
    const int32x4_t e = vaddq_s32(vcvtq_s32_f32(n.v), vdupq_n_s32(127));
    return {vmulq_f32(a.v, vreinterpretq_f32_s32(vshlq_n_s32(e, 23)))};
}
UNRAIN_HD float sum(Vec a) { return vaddvq_f32(a.v); }

UNRAIN_HD Vec load(const bf16* p) { return {vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&p->bits), 16))}; }
UNRAIN_HD void store(bf16* p, Vec a) {
    const uint32x4_t bits = vreinterpretq_u32_f32(a.v);
    const uint32x4_t lsb = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(lsb, vdupq_n_u32(0x7FFF)));
    const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
    vst1_u16(&p->bits, vshrn_n_u32(vbslq_u32(vceqq_f32(a.v, a.v), rounded, quiet), 16));
}
UNRAIN_HD Vec load(const f16* p) { return {vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits)))}; }
UNRAIN_HD void store(f16* p, Vec a) { vst1_u16(&p->bits, vreinterpret_u16_f16(vcvt_f16_f32(a.v))); }
UNRAIN_HD Vec load(const std::uint8_t* p) {
    std::uint32_t four;
    std::memcpy(&four, p, 4);
    const uint16x8_t w = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)));
    return {vcvtq_f32_u32(vmovl_u16(vget_low_u16(w)))};
}
UNRAIN_HD void store(std::uint8_t* p, Vec a) {
    const uint16x4_t w = vqmovn_u32(vcvtq_u32_f32(a.v));
    const std::uint32_t four = vget_lane_u32(vreinterpret_u32_u8(vqmovn_u16(vcombine_u16(w, w))), 0);
    std::memcpy(p, &four, 4);
}

UNRAIN_HD void deinterleave(Vec a, Vec b, Vec& even, Vec& odd) {
    even.v = vuzp1q_f32(a.v, b.v);
    odd.v = vuzp2q_f32(a.v, b.v);
}
UNRAIN_HD void interleave(Vec even, Vec odd, Vec& a, Vec& b) {
    a.v = vzip1q_f32(even.v, odd.v);
    b.v = vzip2q_f32(even.v, odd.v);
}
UNRAIN_HD void transpose(Vec (&r)[4]) {
    const float32x4x2_t p = vtrnq_f32(r[0].v, r[1].v);
    const float32x4x2_t q = vtrnq_f32(r[2].v, r[3].v);
    r[0].v = vcombine_f32(vget_low_f32(p.val[0]), vget_low_f32(q.val[0]));
    r[1].v = vcombine_f32(vget_low_f32(p.val[1]), vget_low_f32(q.val[1]));
    r[2].v = vcombine_f32(vget_high_f32(p.val[0]), vget_high_f32(q.val[0]));
    r[3].v = vcombine_f32(vget_high_f32(p.val[1]), vget_high_f32(q.val[1]));
}

}  // namespace unrain::UNRAIN_TIER
