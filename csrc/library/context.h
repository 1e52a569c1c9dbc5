// What csrc/include/unrain.h leaves open of a context. It lies at the beginning of its own memory; behind it come the
// frame as it came, packed weights, maps, and the states that go from one frame to the next.
#pragma once

#include <optional>

#include "../ops.h"
#include "../program/carver.h"
#include "../program/context.h"
#include "frames.h"
#include "latencies.h"
#include "program.h"

struct unrain_context {
    unrain_options options = {};
    const unrain_program* file = nullptr;
    const unrain::Tier* tier = nullptr;
    unrain::program::Prepared prepared;
    unrain::program::Plan plan;
    std::optional<unrain::program::Context> core;
    void* owned = nullptr;  // memory from malloc, to be given back

    void* weights = nullptr;
    void* arena = nullptr;
    unrain::library::Frame<std::uint8_t> raw = {};
    float *change = nullptr, *staging = nullptr;
    char* states = nullptr;  // one after the other, as the ports of the second run are
    bool carries = false;    // the network has a state for video, and the options ask for it
    bool carried = false;    // `states` hold that of the last frame

    unrain::program::Message reason;
    double stage_us = 0;  // what a stage took of late
    unrain_counters counters = {};
    unrain::library::Latencies latencies;

    // Decides everything but where it lies.
    bool decide(const unrain_program& program, const unrain_options& asked, unrain::program::Message& message);

    // Takes all parts out of the carver: of its memory, or only counted.
    void lay_out(unrain::program::Carver& carver);

    // Once it is laid out; then frames may come.
    bool get_ready(unrain::program::Message& message);
};

namespace unrain::library {

struct FrameShape {
    int planes;
    std::ptrdiff_t row_bytes[2], rows[2];
};

inline FrameShape shape_of(unrain_format format, std::ptrdiff_t width, std::ptrdiff_t height) {
    if (format != UNRAIN_NV12) return {1, {3 * width, 0}, {height, 0}};
    return {2, {width, (width + 1) / 2 * 2}, {height, (height + 1) / 2}};
}

}  // namespace unrain::library
