// The two ends of a run on one frame of a camera: bytes with row pitch and planes of their own, straight into the thin
// map that a program begins with and out of the one that it ends with. csrc/kernels/camera_frame.h are the kernels.
#pragma once

#include "../storage.h"

namespace unrain::library {

enum class Format : int { rgb8 = 0, bgr8 = 1, nv12 = 2 };

template <class Byte>
struct Frame {
    Format format;
    Byte* data[2];  // NV12: luma, pairs of chroma; else the first alone
    std::ptrdiff_t stride[2];
};

constexpr std::ptrdiff_t kThin = 4;       // numbers of a pixel of a thin map
constexpr std::ptrdiff_t kTaskRows = 8;   // rows of a task, even: two rows of NV12 share one of chroma
constexpr std::ptrdiff_t kSampled = 8;    // every so manieth pixel and row is compared with the frame
constexpr std::ptrdiff_t kStagedRows = 12;

// Numbers of a row of staging, with room for whole vectors behind the last pixel.
constexpr std::ptrdiff_t staged_row(std::ptrdiff_t width) { return (width + 63) / 64 * 64 + 64; }
constexpr std::ptrdiff_t staging_numbers(std::ptrdiff_t width) { return kStagedRows * staged_row(width); }
constexpr std::ptrdiff_t tasks_of(std::ptrdiff_t height) { return (height + kTaskRows - 1) / kTaskRows; }

struct FrameCall {
    Frame<const std::uint8_t> raw;
    float* map = nullptr;          // [.., map_width, kThin]
    std::ptrdiff_t map_width = 0;  // padded
    std::ptrdiff_t height = 0, width = 0;
    Frame<std::uint8_t> out = {};
    float strength = 1;
    float* change = nullptr;   // for each task: how much sampled numbers differ from the frame's; NaN where one of all
                               // is not finite
    float* staging = nullptr;  // staging_numbers() for each thread
    int threads = 1;
};

// What a tier offers.
struct FrameKernels {
    void (*in)(const FrameCall&);       // raw to map, without padding
    void (*out)(const FrameCall&);      // map, mixed with raw, to out
    void (*through)(const FrameCall&);  // raw to out
};

}  // namespace unrain::library
