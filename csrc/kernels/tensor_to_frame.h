// tensor_to_frame: numbers to the bytes of a frame, with residual, clamp, rounding, crop and order of channels.
//
// Layout  three planes or interleaved channels, to interleaved bytes.
// Tiling  8 rows of the frame per task; a row's bytes are sorted in the first-level cache.
// Traffic reads 3 (with a residual 6) numbers and writes 3 bytes per pixel.
// Bound   memory: the reads.
#pragma once

#include "../parallel.h"
#include "../pixel/colour.h"
#include "../scratch.h"
#include "../simd/bytes.h"
#include "frame_to_tensor.h"

namespace unrain::UNRAIN_TIER {

template <class T>
void numbers_to_bytes(const T* numbers, const T* residual, std::uint8_t* bytes, Index count, bool truncate) {
    for (Index k = 0; k < count; k += kLanes) {
        Vec value = load_lanes(numbers + k, count - k);
        if (residual != nullptr) value = value + load_lanes(residual + k, count - k);
        store_lanes(bytes + k, to_byte(value, truncate), count - k);
    }
}

template <class T>
const char* tensor_to_frame_typed(const TensorToFrame& a) {
    const Index h = a.height, w = a.width;
    const Index blocks = ceil_div(h, kFrameRows);
    const Index plane = a.image_height * a.image_width;
    const bool truncate = a.truncate != 0;
    const Index staging = ceil_div(3 * w, 64) * 64;
    const Scratch<std::uint8_t> scratch(static_cast<std::size_t>(staging * a.threads));
    if (scratch.failed()) return kNoMemory;
    const T* image = static_cast<const T*>(a.image);
    const T* residual = static_cast<const T*>(a.residual);
    const auto beside = [&](Index offset) { return residual == nullptr ? nullptr : residual + offset; };
    const std::size_t bytes = static_cast<std::size_t>(a.batch * h * w) * 3 * (2 * sizeof(T) + 1);
    for_each_task(a.batch * blocks, bytes, a.threads, [&](Index task, int slot) {
        const Index b = task / blocks;
        const Index last = least(h, (task % blocks + 1) * kFrameRows);
        std::uint8_t* sorted = scratch.data() + slot * staging;
        for (Index y = task % blocks * kFrameRows; y < last; ++y) {
            std::uint8_t* frame = a.frame + (b * h + y) * w * 3;
            if (a.channels_last != 0) {
                const Index row = (b * a.image_height + y) * a.image_width * 3;
                numbers_to_bytes(image + row, beside(row), a.bgr != 0 ? sorted : frame, 3 * w, truncate);
                for (Index x = 0; a.bgr != 0 && x < w; ++x) {
                    for (int c = 0; c < 3; ++c) frame[3 * x + c] = sorted[3 * x + 2 - c];
                }
                continue;
            }
            const std::uint8_t* planes[3];
            for (int c = 0; c < 3; ++c) {
                const Index row = (b * 3 + c) * plane + y * a.image_width;
                numbers_to_bytes(image + row, beside(row), sorted + c * w, w, truncate);
                planes[a.bgr != 0 ? 2 - c : c] = sorted + c * w;
            }
            const std::uint8_t* const ordered[3] = {planes[0], planes[1], planes[2]};
            join_pixels(ordered, frame, w);
        }
    });
    return nullptr;
}

static const char* tensor_to_frame(const TensorToFrame& a, bool) {
    if (a.dtype == DType::f32) return tensor_to_frame_typed<float>(a);
    if (a.dtype == DType::f16) return tensor_to_frame_typed<f16>(a);
    return tensor_to_frame_typed<bf16>(a);
}

}  // namespace unrain::UNRAIN_TIER
