// One pixel of each frame op, from its address in memory to the other: the body of the CUDA kernels. The tests run it
// on the host against the C++ loops, so that its indices are checked where there is no GPU.
#pragma once

#include "colour.h"

namespace unrain::UNRAIN_TIER {

// Writes pixel (y, x) of the padded picture b.
template <class T>
UNRAIN_HD void frame_to_tensor_pixel(const FrameToTensor& a, std::ptrdiff_t b, std::ptrdiff_t y, std::ptrdiff_t x) {
    const std::ptrdiff_t row = reflect(y, a.height), column = reflect(x, a.width);
    Rgb<float> rgb;
    if (a.nv12 != 0) {
        const std::uint8_t* picture = a.frame + b * (a.height / 2 * 3) * a.width;
        const std::uint8_t* chroma = picture + (a.height + row / 2) * a.width + column / 2 * 2;
        rgb = from_yuv(load_one(picture + row * a.width + column), load_one(chroma), load_one(chroma + 1), a);
    } else {
        const std::uint8_t* pixel = a.frame + ((b * a.height + row) * a.width + column) * 3;
        rgb = {from_byte(load_one(pixel)), from_byte(load_one(pixel + 1)), from_byte(load_one(pixel + 2))};
        if (a.bgr != 0) rgb = {rgb.b, rgb.g, rgb.r};
    }
    const std::ptrdiff_t plane = a.padded_height * a.padded_width, at = y * a.padded_width + x;
    const std::ptrdiff_t step = a.channels_last != 0 ? 1 : plane;
    T* to = static_cast<T*>(a.image) + b * 3 * plane + (a.channels_last != 0 ? 3 * at : at);
    store_one(to, rgb.r);
    store_one(to + step, rgb.g);
    store_one(to + 2 * step, rgb.b);
}

// Writes pixel (y, x) of frame b.
template <class T>
UNRAIN_HD void tensor_to_frame_pixel(const TensorToFrame& a, std::ptrdiff_t b, std::ptrdiff_t y, std::ptrdiff_t x) {
    const std::ptrdiff_t plane = a.image_height * a.image_width, at = y * a.image_width + x;
    const std::ptrdiff_t step = a.channels_last != 0 ? 1 : plane;
    const std::ptrdiff_t from = b * 3 * plane + (a.channels_last != 0 ? 3 * at : at);
    std::uint8_t* to = a.frame + ((b * a.height + y) * a.width + x) * 3;
    for (int c = 0; c < 3; ++c) {
        const std::ptrdiff_t place = from + c * step;
        float value = load_one(static_cast<const T*>(a.image) + place);
        if (a.residual != nullptr) value = value + load_one(static_cast<const T*>(a.residual) + place);
        store_one(to + (a.bgr != 0 ? 2 - c : c), to_byte(value, a.truncate != 0));
    }
}

}  // namespace unrain::UNRAIN_TIER
