// A convolution as a product of matrices without a gather: any kernel, stride, dilation, groups, sources.
//
// Layout  the pixels that a task reads are copied, sources side by side and zeros around the picture, into a patch in
//         the dtype of the products. There the taps of one row of the window lie together: 3 x 3 taps of a picture of 3
//         channels are 3 runs of 9 numbers.
// Tiling  a task is a rectangle of places whose patch a second-level cache holds; a block of places by vectors of
//         outputs is summed in registers, over the whole window, and finished from there.
// Depthwise ones take a vector of channels of a pixel in place of one repeated number.
// Bound   arithmetic, from about 16 inputs times taps on.
#pragma once

#include "../parallel.h"
#include "conv_finish.h"

namespace unrain::UNRAIN_TIER {

template <class T, class V>
UNRAIN_HD void copy_channels(const T* from, V* to, Index count) {
    for (Index k = 0; k < count; k += kLanes) put(to + k, load(from + k));
}

// One row of the patch, `count` pixels from `left` on, all of them inside the picture.
template <class V>
void copy_pixels(const ConvLayer& a, const ConvCall& call, Index inputs, Index image, Index row, Index left,
                 Index count, V* to) {
    const Index first = (image * call.height + row) * call.width + left;
    Index at = 0;
    for (int k = 0; k < a.sources; ++k) {
        const ConvSource& source = a.source[k];
        const Index stored = stored_channels(source), width = width_of(source);
        if (source.thin) {
            const float* x = static_cast<const float*>(call.x[k]) + first * stored;
            for (Index j = 0; j < count; ++j) {
                for (Index c = 0; c < width; ++c) store_one(to + j * inputs + at + c, x[j * stored + c]);
            }
        } else if (source.dtype == DType::f32) {
            const float* x = static_cast<const float*>(call.x[k]) + first * stored;
            for (Index j = 0; j < count; ++j) copy_channels(x + j * stored, to + j * inputs + at, stored);
        } else {
            const bf16* x = static_cast<const bf16*>(call.x[k]) + first * stored;
            for (Index j = 0; j < count; ++j) copy_channels(x + j * stored, to + j * inputs + at, stored);
        }
        at += width;
    }
    if (at < inputs) {
        for (Index j = 0; j < count; ++j) store_one(to + j * inputs + at, 0.0F);
    }
}

// Rows from `top` on, columns from `left` on, of which some may lie outside.
template <class V>
void fill_patch(const ConvLayer& a, const ConvCall& call, Index inputs, Index image, Index top, Index left, Index rows,
                Index columns, Index line, V* patch) {
    const Index begin = least(columns, most(0, -left)), end = most(begin, least(columns, call.width - left));
    for (Index i = 0; i < rows; ++i) {
        V* to = patch + i * line;
        if (top + i < 0 || top + i >= call.height) {
            std::memset(to, 0, static_cast<std::size_t>(columns * inputs) * sizeof(V));
            continue;
        }
        std::memset(to, 0, static_cast<std::size_t>(begin * inputs) * sizeof(V));
        copy_pixels(a, call, inputs, image, top + i, left + begin, end - begin, to + begin * inputs);
        std::memset(to + end * inputs, 0, static_cast<std::size_t>((columns - end) * inputs) * sizeof(V));
    }
}

// The numbers of a patch that a block of outputs reads for one place.
struct Runs {
    Index rows, row;      // and the distance between them
    Index columns, column;
    Index length;
};

// kRows places by kColumns vectors of outputs. `vector` is the distance between the weights of two blocks of 16.
template <Index kRows, Index kColumns, class V>
UNRAIN_HD void sum_block(const V* x, Index place, const Runs& runs, const V* weight, Index vector, const float* bias,
                         Vec (&sum)[kRows][kColumns]) {
    constexpr Index kPer = kBlock / kLanes, kPair = kDepthOf<V>;
    UNRAIN_UNROLL
    for (Index n = 0; n < kColumns; ++n) {
        const Vec start = load(bias + n * kLanes);
        UNRAIN_UNROLL
        for (Index r = 0; r < kRows; ++r) sum[r][n] = start;
    }
    for (Index i = 0; i < runs.rows; ++i) {
        for (Index j = 0; j < runs.columns; ++j) {
            const V* p = x + i * runs.row + j * runs.column;
            for (Index k = 0; k < runs.length; k += kPair) {
                decltype(load_outputs(weight)) taps[kColumns];
                UNRAIN_UNROLL
                for (Index n = 0; n < kColumns; ++n) {
                    taps[n] = load_outputs(weight + n / kPer * vector + n % kPer * kLanes * kPair);
                }
                weight += kBlock * kPair;
                UNRAIN_UNROLL
                for (Index r = 0; r < kRows; ++r) {
                    const auto value = repeat(p + r * place + k);
                    UNRAIN_UNROLL
                    for (Index n = 0; n < kColumns; ++n) sum[r][n] = multiply_add(value, taps[n], sum[r][n]);
                }
            }
        }
    }
}

// Into rows of memory, `width` numbers apart.
template <Index kRows, Index kColumns>
UNRAIN_HD void keep(const Vec (&sum)[kRows][kColumns], float* sums, Index width) {
    UNRAIN_UNROLL
    for (Index r = 0; r < kRows; ++r) {
        UNRAIN_UNROLL
        for (Index n = 0; n < kColumns; ++n) store(sums + r * width + n * kLanes, sum[r][n]);
    }
}

// Where a task's places are.
struct Rectangle {
    Index image, top, left, rows, columns;
};

// What a block of packed outputs reads of the patch of a task, and where its weights are.
template <class V>
struct Block {
    Runs runs;
    const V* patch;
    const V* weight;
    Index vector;  // from its weights to those of the next 16 outputs
};

template <class V>
Block<V> block_of(const ConvLayer& a, const ConvPlan& p, const ConvWindow& w, const V* patch, const V* weight) {
    const bool whole = w.from == 0 && w.to == p.inputs && a.dilation == 1;
    const Index pixel = a.dilation * p.inputs, row = a.dilation * patch_columns(a, p) * p.inputs, each = w.to - w.from;
    return {{w.rows, row, whole ? 1 : w.columns, pixel, whole ? w.columns * each : each},
            patch + w.row * row + w.column * pixel + w.from,
            weight,
            w.size() * kBlock};
}

constexpr Index kPlaces = kSumVectors / (kBlock / kLanes);  // of a block

// All places of a task by 16 outputs from k on, whose sums `sum_places(row, column, sums)` makes.
template <class SumPlaces>
UNRAIN_HD void finish_places(const Finish& f, const Rectangle& at, Index k, const SumPlaces& sum_places) {
    const Index start = f.offset(at.image, at.top, at.left, k), right = f.right(), below = f.below();
    for (Index i = 0; i < at.rows; ++i) {
        for (Index j = 0; j < at.columns; j += kPlaces) {
            Vec sum[kPlaces][kBlock / kLanes];
            sum_places(i, j, sum);
            float sums[kPlaces * kBlock];
            keep(sum, sums, kBlock);
            const Spread to{start + i * below + j * right, right, 0, least(kPlaces, at.columns - j), 1};
            f.ending(f, to, k, sums, kPlaces);
        }
    }
}

// All places of a task by 16 outputs from k on.
template <class V>
void convolve_block(const ConvPlan& p, const Finish& f, const Rectangle& at, const Block<V>& b, Index line, Index k) {
    const Index place = p.stride * p.inputs;
    finish_places(f, at, k, [&](Index i, Index j, Vec(&sum)[kPlaces][kBlock / kLanes]) {
        sum_block(b.patch + i * p.stride * line + j * place, place, b.runs, b.weight, b.vector, f.bias + k, sum);
    });
}

// All places of a task by 16 channels from k on, each of which reads itself alone. `weight` [window, window, 16].
[[maybe_unused]] static void convolve_depthwise(const ConvLayer& a, const ConvPlan& p, const Finish& f,
                                                const Rectangle& at, const float* patch, Index line,
                                                const float* weight, Index k) {
    const Index place = p.stride * p.inputs, row = a.dilation * line, column = a.dilation * p.inputs;
    finish_places(f, at, k, [&](Index i, Index j, Vec(&sum)[kPlaces][kBlock / kLanes]) {
        const float* x = patch + i * p.stride * line + j * place + k;
        const float* taps = weight;
        for (Index n = 0; n < kBlock / kLanes; ++n) {
            for (Index r = 0; r < kPlaces; ++r) sum[r][n] = load(f.bias + k + n * kLanes);
        }
        for (Index u = 0; u < p.window; ++u) {
            for (Index v = 0; v < p.window; ++v, taps += kBlock) {
                const float* pixel = x + u * row + v * column;
                UNRAIN_UNROLL
                for (Index n = 0; n < kBlock / kLanes; ++n) {
                    const Vec tap = load(taps + n * kLanes);
                    UNRAIN_UNROLL
                    for (Index r = 0; r < kPlaces; ++r) {
                        sum[r][n] = fma(load(pixel + r * place + n * kLanes), tap, sum[r][n]);
                    }
                }
            }
        }
    });
}

// All places of a task by the gates of 16 channels.
template <class V>
void convolve_gates(const ConvLayer& a, const ConvCall& call, const ConvPlan& p, const Finish& f, const Rectangle& at,
                    const Block<V>& b, Index line, Index k) {
    const Index place = p.stride * p.inputs, width = a.gates * kBlock;
    for (Index i = 0; i < at.rows; ++i) {
        for (Index j = 0; j < at.columns; j += kPlaces) {
            float sums[kPlaces * 4 * kBlock];
            for (Index g = 0; g < a.gates; ++g) {
                Vec sum[kPlaces][kBlock / kLanes];
                sum_block(b.patch + i * p.stride * line + j * place, place, b.runs, b.weight + g * b.vector, b.vector,
                          f.bias + k + g * kBlock, sum);
                keep(sum, sums + g * kBlock, width);
            }
            const Index to = ((at.image * f.rows + at.top + i) * f.columns + at.left + j) * f.stored;
            const Index count = least(kPlaces, at.columns - j);
            finish_gates(a, call, f, to, k, sums, count);
        }
    }
}

template <class V>
void convolve_task(const ConvLayer& a, const ConvCall& call, const ConvPlan& p, const Finish& f, const Rectangle& at,
                   V* patch) {
    const Index halo = (p.window - 1) * a.dilation + 1 - p.stride, line = patch_columns(a, p) * p.inputs;
    fill_patch(a, call, p.inputs, at.image, at.top * p.stride - p.before, at.left * p.stride - p.before,
               at.rows * p.stride + halo, at.columns * p.stride + halo, line, patch);
    const V* weight = reinterpret_cast<const V*>(static_cast<const char*>(call.packed) + parameter_bytes(p));
    if constexpr (sizeof(V) == sizeof(float)) {
        if (p.way == ConvWay::depthwise) {
            const Index each = p.window * p.window;
            for (Index k = 0; k < p.outputs; k += kBlock) {
                convolve_depthwise(a, p, f, at, patch, line, weight + k * each, k);
            }
            return;
        }
    }
    const Index step = kBlock * (a.gates != 0 ? a.gates : 1);
    for (Index k = 0; k < p.outputs; k += step) {
        const ConvWindow w = window_of(a, p, k / kBlock);
        const Block<V> b = block_of(a, p, w, patch, weight);
        if (a.gates != 0) {
            convolve_gates(a, call, p, f, at, b, line, k);
        } else {
            convolve_block(p, f, at, b, line, k);
        }
        weight += w.size() * step;
    }
}

template <class V>
void convolve_direct(const ConvLayer& a, const ConvPlan& p, const ConvCall& call) {
    const Finish f(a, p, call);
    const Index down = ceil_div(f.rows, p.tile_rows), across = ceil_div(f.columns, p.tile_columns);
    const Index bytes = patch_bytes(a, p);
    const auto work = static_cast<std::size_t>(call.batch * f.rows * f.columns * p.outputs * p.inputs * p.window);
    for_each_task(call.batch * down * across, work, call.threads, [&](Index task, int slot) {
        const Index top = task / across % down * p.tile_rows, left = task % across * p.tile_columns;
        const Rectangle at{task / (down * across), top, left, least(p.tile_rows, f.rows - top),
                           least(p.tile_columns, f.columns - left)};
        convolve_task(a, call, p, f, at, reinterpret_cast<V*>(static_cast<char*>(call.workspace) + slot * bytes));
    });
}

}  // namespace unrain::UNRAIN_TIER
