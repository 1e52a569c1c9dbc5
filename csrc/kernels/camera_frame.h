// A camera's frame to the thin map of a program and back.
//
// Layout  RGB, BGR or NV12 bytes by rows of any pitch; a map of four float32 per pixel.
// Tiling  8 rows per task; a row is sorted into three rows of numbers in the first-level cache on its way.
// Traffic in: reads 3 (NV12: 1.5) bytes and writes 16 per pixel; out: the reverse, and what is mixed in or compared.
// Bound   memory: the map.
#pragma once

#include "../library/frames.h"
#include "../parallel.h"
#include "tensor_to_frame.h"

namespace unrain::UNRAIN_TIER {

using library::Format;
using library::FrameCall;
using library::kThin;

struct Rows {
    float* channel[3];
};

// Raw frames do not say how their colours are coded: video range, and the usual guess at the matrix.
UNRAIN_HD FrameToTensor video_range(Index height, Index width) {
    FrameToTensor a{};
    a.width = width;
    a.black = 16.0F;
    a.white = 219.0F;
    a.chroma = 224.0F;
    a.kr = height >= 720 ? 0.2126F : 0.299F;
    a.kb = height >= 720 ? 0.0722F : 0.114F;
    return a;
}

// Staging of one thread: rows of numbers from the front, three rows of bytes in the last of them.
class Staging {
public:
    Staging(const FrameCall& c, int slot)
        : row_(library::staged_row(c.width)), numbers_(c.staging + slot * library::staging_numbers(c.width)) {}
    Rows rows(int set) const {
        float* from = numbers_ + 3 * set * row_;
        return {{from, from + row_, from + 2 * row_}};
    }
    std::uint8_t* bytes(int k) const {
        return reinterpret_cast<std::uint8_t*>(numbers_ + (library::kStagedRows - 3 + k) * row_);
    }

private:
    Index row_;
    float* numbers_;
};

// Row y of the frame as it came.
static void raw_row(const FrameCall& c, Index y, const Rows& to, const Staging& staging) {
    const Index w = c.width;
    const std::uint8_t* row = c.raw.data[0] + y * c.raw.stride[0];
    std::uint8_t* const sorted[3] = {staging.bytes(0), staging.bytes(1), staging.bytes(2)};
    if (c.raw.format == Format::nv12) {
        const std::uint8_t* chroma = c.raw.data[1] + y / 2 * c.raw.stride[1];
        for (Index x = 0; x < w; x += 2) {
            sorted[0][x] = sorted[0][x + 1] = chroma[x];
            sorted[1][x] = sorted[1][x + 1] = chroma[x + 1];
        }
        return yuv_to_numbers(video_range(c.height, w), row, sorted[0], sorted[1], to.channel);
    }
    split_pixels(row, sorted, w);
    for (int k = 0; k < 3; ++k) {
        bytes_to_numbers(sorted[c.raw.format == Format::bgr8 ? 2 - k : k], to.channel[k], w);
    }
}

static void rows_to_rgb(const FrameCall& c, Index y, const Rows& from, const Staging& staging) {
    const std::uint8_t* sorted[3];
    for (int k = 0; k < 3; ++k) {
        numbers_to_bytes<float>(from.channel[k], nullptr, staging.bytes(k), c.width, false);
        sorted[c.out.format == Format::bgr8 ? 2 - k : k] = staging.bytes(k);
    }
    const std::uint8_t* const ordered[3] = {sorted[0], sorted[1], sorted[2]};
    join_pixels(ordered, c.out.data[0] + y * c.out.stride[0], c.width);
}

UNRAIN_HD Vec clamped(Vec x) { return min(max(x, zero()), set1(1.0F)); }

UNRAIN_HD Vec luma_of(Vec r, Vec g, Vec b, const FrameToTensor& a) {
    return set1(a.kr) * r + set1(1.0F - a.kr - a.kb) * g + set1(a.kb) * b;
}

UNRAIN_HD void store_code(std::uint8_t* to, Vec code, Index n) {
    store_lanes(to, round_even(min(max(code, zero()), set1(255.0F))), n);
}

static void luma_row(const FrameCall& c, Index y, const Rows& from) {
    const FrameToTensor a = video_range(c.height, c.width);
    std::uint8_t* to = c.out.data[0] + y * c.out.stride[0];
    for (Index k = 0; k < c.width; k += kLanes) {
        const Vec r = clamped(load(from.channel[0] + k)), g = clamped(load(from.channel[1] + k));
        const Vec luma = luma_of(r, g, clamped(load(from.channel[2] + k)), a);
        store_code(to + k, set1(a.black) + set1(a.white) * luma, c.width - k);
    }
}

// The mean of 2 x 2 pixels, of a row and the one below it (the last one once more where there is none).
static void chroma_row(const FrameCall& c, Index y, const Rows& upper, const Rows& lower, const Staging& staging) {
    const Index w = c.width, pairs = ceil_div(w, 2);
    for (int k = 0; k < 3; ++k) {
        float *top = upper.channel[k], *bottom = lower.channel[k];
        for (Index x = 0; x < w; x += kLanes) store(top + x, clamped(load(top + x)) + clamped(load(bottom + x)));
        top[w] = w % 2 != 0 ? top[w - 1] : top[w];
        for (Index x = 0; x < pairs; x += kLanes) {
            Vec even, odd;
            deinterleave(load(top + 2 * x), load(top + 2 * x + kLanes), even, odd);
            store(top + x, (even + odd) * set1(0.25F));  // behind what is still to be read
        }
    }
    const FrameToTensor a = video_range(c.height, w);
    std::uint8_t *u = staging.bytes(0), *v = staging.bytes(1);
    const Vec blue_range = set1(a.chroma / (2.0F * (1.0F - a.kb))), red_range = set1(a.chroma / (2.0F * (1.0F - a.kr)));
    for (Index k = 0; k < pairs; k += kLanes) {
        const Vec r = load(upper.channel[0] + k), g = load(upper.channel[1] + k), b = load(upper.channel[2] + k);
        const Vec luma = luma_of(r, g, b, a), centre = set1(128.0F);
        store_code(u + k, centre + blue_range * (b - luma), kLanes);
        store_code(v + k, centre + red_range * (r - luma), kLanes);
    }
    std::uint8_t* to = c.out.data[1] + y / 2 * c.out.stride[1];
    for (Index k = 0; k < pairs; ++k) {
        to[2 * k] = u[k];
        to[2 * k + 1] = v[k];
    }
}

// body(task, slot, first row, last row)
template <class Body>
void for_each_frame_task(const FrameCall& c, const Body& body) {
    const auto bytes = static_cast<std::size_t>(c.height * c.width * (kThin * 4 + 3));
    for_each_task(library::tasks_of(c.height), bytes, c.threads, [&](Index task, int slot) {
        const Index first = task * library::kTaskRows;
        body(task, slot, first, least(c.height, first + library::kTaskRows));
    });
}

// Two rows at a time, of which `row(y, rows)` makes each.
template <class Row>
void rows_out(const FrameCall& c, const Staging& staging, Index first, Index last, const Row& row) {
    for (Index y = first; y < last; y += 2) {
        const Rows upper = staging.rows(0), lower = staging.rows(y + 1 < last ? 1 : 0);
        for (Index k = y; k < least(y + 2, last); ++k) {
            const Rows& rows = k == y ? upper : lower;
            row(k, rows);
            if (c.out.format == Format::nv12) {
                luma_row(c, k, rows);
            } else {
                rows_to_rgb(c, k, rows, staging);
            }
        }
        if (c.out.format == Format::nv12) chroma_row(c, y, upper, lower, staging);
    }
}

static void frame_in(const FrameCall& c) {
    for_each_frame_task(c, [&](Index, int slot, Index first, Index last) {
        const Staging staging(c, slot);
        const Rows rows = staging.rows(0);
        for (Index y = first; y < last; ++y) {
            raw_row(c, y, rows, staging);
            float* to = c.map + y * c.map_width * kThin;
            for (Index x = 0; x < c.width; ++x) {
                to[kThin * x] = rows.channel[0][x];
                to[kThin * x + 1] = rows.channel[1][x];
                to[kThin * x + 2] = rows.channel[2][x];
                to[kThin * x + 3] = 0.0F;
            }
        }
    });
}

static void frame_out(const FrameCall& c) {
    for_each_frame_task(c, [&](Index task, int slot, Index first, Index last) {
        const Staging staging(c, slot);
        const Rows raw = staging.rows(2);
        Vec finite = zero();  // of a number that is finite, 0 times it is 0
        float change = 0.0F;
        rows_out(c, staging, first, last, [&](Index y, const Rows& rows) {
            const float* from = c.map + y * c.map_width * kThin;
            for (Index x = 0; x < c.width; ++x) {
                rows.channel[0][x] = from[kThin * x];
                rows.channel[1][x] = from[kThin * x + 1];
                rows.channel[2][x] = from[kThin * x + 2];
            }
            const bool mixes = c.strength < 1.0F, samples = y % library::kSampled == 0;
            if (mixes || samples) raw_row(c, y, raw, staging);
            for (int k = 0; k < 3; ++k) {
                float *row = rows.channel[k], *before = raw.channel[k];
                for (Index x = 0; x < c.width; x += kLanes) {
                    const Vec made = load(row + x);
                    finite = finite + keep_first(made, c.width - x) * zero();
                    if (!mixes) continue;
                    const Vec frame = load(before + x);
                    store(row + x, frame + set1(c.strength) * (clamped(made) - frame));
                }
                for (Index x = 0; samples && x < c.width; x += library::kSampled) {
                    const float difference = min(max(row[x], 0.0F), 1.0F) - before[x];
                    change += difference < 0.0F ? -difference : difference;
                }
            }
        });
        c.change[task] = change + sum(finite);
    });
}

static void frame_through(const FrameCall& c) {
    const bool nv12 = c.raw.format == Format::nv12;
    for_each_frame_task(c, [&](Index, int slot, Index first, Index last) {
        const Staging staging(c, slot);
        if (c.raw.format != c.out.format) {
            return rows_out(c, staging, first, last, [&](Index y, const Rows& rows) { raw_row(c, y, rows, staging); });
        }
        for (Index y = first; y < last; ++y) {
            const auto bytes = static_cast<std::size_t>(nv12 ? c.width : 3 * c.width);
            std::memcpy(c.out.data[0] + y * c.out.stride[0], c.raw.data[0] + y * c.raw.stride[0], bytes);
            if (!nv12 || y % 2 != 0) continue;
            const auto pairs = static_cast<std::size_t>(2 * ceil_div(c.width, 2));
            std::memcpy(c.out.data[1] + y / 2 * c.out.stride[1], c.raw.data[1] + y / 2 * c.raw.stride[1], pairs);
        }
    });
}

}  // namespace unrain::UNRAIN_TIER
