// Operations of a program in which a number of the result needs only the numbers at its own place: sums, products,
// scales, bounds, blends and the gates of an LSTM; y may be any of the operands.
//
// Layout  channels-last numbers of one picture as one row; constants per channel are filled up to whole vectors.
// Tiling  16384 numbers per task; nothing is shared between tasks.
// Traffic reads each operand and writes y once. Bound: memory.
#pragma once

#include "../parallel.h"
#include "../program/operation.h"
#include "../simd/math.h"
#include "conv_finish.h"

namespace unrain::UNRAIN_TIER {

using program::Op;
using program::Operation;
using program::Place;

constexpr Index kPixelwiseTask = 16384;
constexpr Index kPeriod = 16;  // constants of a thin map repeat within so many numbers

UNRAIN_HD Vec load_number(const Place& p, Index at, Index n) {
    return p.dtype == DType::f32 ? load_lanes(static_cast<const float*>(p.data) + at, n)
                                 : load_lanes(static_cast<const bf16*>(p.data) + at, n);
}
UNRAIN_HD void store_number(const Place& p, Index at, Vec a, Index n) {
    if (p.dtype == DType::f32) {
        store_lanes(static_cast<float*>(p.data) + at, a, n);
    } else {
        store_lanes(static_cast<bf16*>(p.data) + at, a, n);
    }
}

UNRAIN_HD Vec activated(Act act, Vec a, Vec slope) {
    return is_simple(act) ? simple_activation(act, a, slope) : any_activation(act, a, slope);
}

// body(at, k, n): a vector's place in the whole map, in the row of constants, and how many numbers are left.
// `begin_picture(picture)` comes before a task's first one.
template <class BeginPicture, class Body>
void for_each_vector(const Operation& o, Index touched, const BeginPicture& begin_picture, const Body& body) {
    const Index numbers = o.y.numbers(), period = most(o.y.stored, kPeriod);
    const Index each = ceil_div(kPixelwiseTask, period) * period, tasks = ceil_div(numbers, each);
    const auto bytes = static_cast<std::size_t>(o.batch * numbers * touched * 4);
    for_each_task(o.batch * tasks, bytes, o.threads, [&](Index task, int) {
        const Index picture = task / tasks, first = task % tasks * each, last = least(numbers, first + each);
        const auto with = begin_picture(picture);
        for (Index base = first; base < last; base += period) {
            const Index length = least(period, last - base);
            for (Index k = 0; k < length; k += kLanes) body(with, picture * numbers + base + k, k, length - k);
        }
    });
}

struct Nothing {};
inline Nothing nothing(Index) { return {}; }

// A picture's vector of numbers per channel as a row of constants; that of a thin map repeats.
struct VectorRow {
    const float* numbers;
    float repeated[kPeriod];
};

template <class Join>
void join_two(const Operation& o, const Join& join) {
    const Place &a = o.x[0], &b = o.x[1], &y = o.y;
    const Act act = o.act;
    const float* slope = o.constants[0];
    const auto finish = [&](Index at, Index k, Index n, Vec result) {
        store_number(y, at, activated(act, result, slope != nullptr ? load(slope + k) : zero()), n);
    };
    if (!b.vector || a.vector) {
        return for_each_vector(o, 3, nothing, [&](Nothing, Index at, Index k, Index n) {
            finish(at, k, n, join(load_number(a, at, n), load_number(b, at, n)));
        });
    }
    const auto row_of = [&](Index picture) {
        VectorRow row;
        row.numbers = static_cast<const float*>(b.data) + picture * b.stored;
        for (Index k = 0; k < kPeriod; ++k) row.repeated[k] = row.numbers[k % 4];
        return row;
    };
    const bool thin = y.thin();
    for_each_vector(o, 2, row_of, [&](const VectorRow& row, Index at, Index k, Index n) {
        finish(at, k, n, join(load_number(a, at, n), load((thin ? row.repeated : row.numbers) + k)));
    });
}

// Where channels change their order, one number at a time.
static void affine_reordered(const Operation& o) {
    const Place &x = o.x[0], &y = o.y;
    const float *scale = o.constants[0], *offset = o.constants[1], *order = o.constants[2], *slope = o.constants[3];
    const Index pixels = o.batch * y.pixels(), each = most(1, kPixelwiseTask / y.stored);
    const auto bytes = static_cast<std::size_t>(pixels * y.stored * 8);
    for_each_task(ceil_div(pixels, each), bytes, o.threads, [&](Index task, int) {
        const Index last = least(pixels, (task + 1) * each);
        for (Index pixel = task * each; pixel < last; ++pixel) {
            for (Index k = 0; k < y.stored; k += kLanes) {
                float row[kLanes] = {};
                const Index n = y.stored - k;
                for (Index lane = 0; lane < least(kLanes, y.channels - k); ++lane) {
                    const Index from = pixel * x.stored + static_cast<Index>(order[k + lane]);
                    row[lane] = x.dtype == DType::f32 ? static_cast<const float*>(x.data)[from]
                                                      : load_one(static_cast<const bf16*>(x.data) + from);
                }
                Vec result = load(row);
                if (scale != nullptr) result = result * load(scale + k);
                if (offset != nullptr) result = result + load(offset + k);
                result = activated(o.act, result, slope != nullptr ? load(slope + k) : zero());
                store_number(y, pixel * y.stored + k, result, n);
            }
        }
    });
}

static void affine(const Operation& o) {
    if (o.constants[2] != nullptr) return affine_reordered(o);
    const float *scale = o.constants[0], *offset = o.constants[1], *slope = o.constants[3];
    for_each_vector(o, 2, nothing, [&](Nothing, Index at, Index k, Index n) {
        Vec result = load_number(o.x[0], at, n);
        if (scale != nullptr) result = result * load(scale + k);
        if (offset != nullptr) result = result + load(offset + k);
        store_number(o.y, at, activated(o.act, result, slope != nullptr ? load(slope + k) : zero()), n);
    });
}

static void clamp(const Operation& o) {
    const float low = from_bits(static_cast<std::uint32_t>(o.attribute[0]));
    const float high = from_bits(static_cast<std::uint32_t>(o.attribute[1]));
    for_each_vector(o, 2, nothing, [&](Nothing, Index at, Index, Index n) {
        // Of two numbers one of which is none, both give the second: NaN stays NaN.
        store_number(o.y, at, min(set1(high), max(set1(low), load_number(o.x[0], at, n))), n);
    });
}

static void lerp(const Operation& o) {
    for_each_vector(o, 4, nothing, [&](Nothing, Index at, Index, Index n) {
        const Vec a = load_number(o.x[0], at, n), b = load_number(o.x[1], at, n);
        store_number(o.y, at, fma(load_number(o.x[2], at, n), b - a, a), n);
    });
}

// Operands i, f, g, o and c; f and c are absent at a first step.
static void lstm(const Operation& o) {
    const Place &in = o.x[0], &forget = o.x[1], &candidate = o.x[2], &out = o.x[3], &c = o.x[4];
    const bool first = c.data == nullptr;
    for_each_vector(o, 7, nothing, [&](Nothing, Index at, Index, Index n) {
        Vec cell = sigmoid_times_tanh(load_number(in, at, n), load_number(candidate, at, n));
        const Vec open = load_number(out, at, n);
        if (!first) cell = fma(sigmoid(load_number(forget, at, n)), load_number(c, at, n), cell);
        store_number(o.second, at, cell, n);
        store_number(o.y, at, sigmoid_times_tanh(open, cell), n);
    });
}

}  // namespace unrain::UNRAIN_TIER
