// From bytes to [0, 1] and back, one pixel (or one vector of pixels) at a time. No fused multiply-adds: every tier and
// the GPU round alike.
#pragma once

#include "../ops.h"
#include "number.h"

namespace unrain::UNRAIN_TIER {

template <class T>
struct Rgb {
    T r, g, b;
};

template <class T>
UNRAIN_HD T from_byte(T value) {
    return value / constant<T>(255.0F);
}

// y, u and v as bytes: BT.601 or BT.709 by kr and kb, video or full range by black, white and chroma.
template <class T>
UNRAIN_HD Rgb<T> from_yuv(T y, T u, T v, const FrameToTensor& a) {
    const T zero = constant<T>(0.0F), one = constant<T>(1.0F), centre = constant<T>(128.0F);
    const T luma = (y - constant<T>(a.black)) / constant<T>(a.white);
    const T red = luma + constant<T>(2.0F * (1.0F - a.kr)) * ((v - centre) / constant<T>(a.chroma));
    const T blue = luma + constant<T>(2.0F * (1.0F - a.kb)) * ((u - centre) / constant<T>(a.chroma));
    const T rest = luma - constant<T>(a.kr) * red - constant<T>(a.kb) * blue;
    const T green = rest / constant<T>(1.0F - a.kr - a.kb);
    return {min(max(red, zero), one), min(max(green, zero), one), min(max(blue, zero), one)};
}

// A number in 0..255 whose whole part is the byte. NaN, which no byte holds, becomes 0.
template <class T>
UNRAIN_HD T to_byte(T value, bool truncate) {
    value = min(max(value * constant<T>(255.0F), constant<T>(0.0F)), constant<T>(255.0F));
    return truncate ? value : round_even(value);
}

}  // namespace unrain::UNRAIN_TIER
