// frame_to_tensor: bytes of a camera to numbers in [0, 1], with the reflected padding of the bottom and the right.
//
// Layout  RGB or BGR bytes, or NV12; to three planes or to interleaved channels.
// Tiling  8 rows of the padded picture per task; one row's bytes are sorted into planes in the first-level cache.
// Traffic reads 3 bytes (NV12: 1.5) and writes 3 numbers per pixel. A padding row is made from its source row again.
// Bound   memory: the writes.
#pragma once

#include "../parallel.h"
#include "../pixel/colour.h"
#include "../scratch.h"
#include "../simd/bytes.h"

namespace unrain::UNRAIN_TIER {

constexpr Index kFrameRows = 8;

template <class T>
void bytes_to_numbers(const std::uint8_t* bytes, T* numbers, Index count) {
    for (Index k = 0; k < count; k += kLanes) {
        store_lanes(numbers + k, from_byte(load_lanes(bytes + k, count - k)), count - k);
    }
}

// One row of NV12, its chroma already one byte per pixel, to one row of each plane.
template <class T>
void yuv_to_numbers(const FrameToTensor& a, const std::uint8_t* y, const std::uint8_t* u, const std::uint8_t* v,
                    T* const (&planes)[3]) {
    for (Index k = 0; k < a.width; k += kLanes) {
        const Index n = a.width - k;
        const Rgb<Vec> rgb = from_yuv(load_lanes(y + k, n), load_lanes(u + k, n), load_lanes(v + k, n), a);
        store_lanes(planes[0] + k, rgb.r, n);
        store_lanes(planes[1] + k, rgb.g, n);
        store_lanes(planes[2] + k, rgb.b, n);
    }
}

// Row `y` of picture `b` before padding, into `planes` (planar) or `pixels` (interleaved). staging holds 3 rows of
// bytes, then 3 rows of T.
template <class T>
void frame_row(const FrameToTensor& a, Index b, Index y, T* const (&planes)[3], T* pixels, std::uint8_t* staging) {
    const Index w = a.width;
    if (a.nv12 != 0) {
        const std::uint8_t* picture = a.frame + b * (a.height / 2 * 3) * w;
        const std::uint8_t* chroma = picture + (a.height + y / 2) * w;
        std::uint8_t *u = staging, *v = staging + w;
        for (Index x = 0; x < w; x += 2) {
            u[x] = u[x + 1] = chroma[x];
            v[x] = v[x + 1] = chroma[x + 1];
        }
        if (pixels == nullptr) return yuv_to_numbers(a, picture + y * w, u, v, planes);
        T* rows = reinterpret_cast<T*>(staging + ceil_div(3 * w, 64) * 64);
        T* const sorted[3] = {rows, rows + w, rows + 2 * w};
        yuv_to_numbers(a, picture + y * w, u, v, sorted);
        for (Index x = 0; x < w; ++x) {
            for (int c = 0; c < 3; ++c) pixels[3 * x + c] = sorted[c][x];
        }
        return;
    }
    const std::uint8_t* row = a.frame + (b * a.height + y) * w * 3;
    if (pixels != nullptr && a.bgr == 0) return bytes_to_numbers(row, pixels, 3 * w);
    std::uint8_t* const sorted[3] = {staging, staging + w, staging + 2 * w};
    if (pixels != nullptr) {
        for (Index x = 0; x < w; ++x) {
            for (int c = 0; c < 3; ++c) staging[3 * x + c] = row[3 * x + 2 - c];
        }
        return bytes_to_numbers(staging, pixels, 3 * w);
    }
    split_pixels(row, sorted, w);
    for (int c = 0; c < 3; ++c) bytes_to_numbers(sorted[a.bgr != 0 ? 2 - c : c], planes[c], w);
}

template <class T>
const char* frame_to_tensor_typed(const FrameToTensor& a) {
    const Index ph = a.padded_height, pw = a.padded_width, w = a.width;
    const Index blocks = ceil_div(ph, kFrameRows);
    const Index staging = ceil_div(3 * w, 64) * 64 + 3 * w * static_cast<Index>(sizeof(T)) + 64;
    const Scratch<std::uint8_t> scratch(static_cast<std::size_t>(staging * a.threads));
    if (scratch.failed()) return kNoMemory;
    const std::size_t bytes = static_cast<std::size_t>(a.batch * ph * pw) * 3 * (sizeof(T) + 1);
    for_each_task(a.batch * blocks, bytes, a.threads, [&](Index task, int slot) {
        const Index b = task / blocks;
        const Index last = least(ph, (task % blocks + 1) * kFrameRows);
        T* picture = static_cast<T*>(a.image) + b * 3 * ph * pw;
        for (Index y = task % blocks * kFrameRows; y < last; ++y) {
            const Index step = a.channels_last != 0 ? 3 : 1;
            T* pixels = a.channels_last != 0 ? picture + y * pw * 3 : nullptr;
            T* const planes[3] = {picture + y * pw, picture + (ph + y) * pw, picture + (2 * ph + y) * pw};
            frame_row(a, b, reflect(y, a.height), planes, pixels, scratch.data() + slot * staging);
            for (Index x = w; x < pw; ++x) {
                const Index from = reflect(x, w);
                for (int c = 0; c < 3; ++c) {
                    T* row = pixels != nullptr ? pixels + c : planes[c];
                    row[x * step] = row[from * step];
                }
            }
        }
    });
    return nullptr;
}

static const char* frame_to_tensor(const FrameToTensor& a, bool) {
    if (a.dtype == DType::f32) return frame_to_tensor_typed<float>(a);
    if (a.dtype == DType::f16) return frame_to_tensor_typed<f16>(a);
    return frame_to_tensor_typed<bf16>(a);
}

}  // namespace unrain::UNRAIN_TIER
