// conv3x3: a 3x3 convolution in the channels-last layout by Winograd's F(4x4, 3x3), with what follows it done before
// the result is stored: bias, ReLU or PReLU, a sum; or the gates of a ConvLSTM. For the engine, on weights packed
// beforehand; dilated, transposed and 1x1 convolutions, too.
//
// Layout  inputs are up to four maps side by side, each [batch, height, width, its channels]; no concatenation is made.
// Tiling  24 tiles of 4 x 4 pixels per task; their 36 transformed matrices and 36 products live in the caller's
//         workspace, which a second-level cache holds. Nothing is shared between tasks.
// Traffic reads each map about 2.25 times (mostly from cache), writes the result once: of a ConvLSTM only h and c.
// Bound   arithmetic: a quarter of the direct multiplications, plus the transforms, which are about half as much again
//         for 32 channels and less for more.
// Transposed (to twice the size): each of the four pixels for one of x is a convolution with 1, 2, 2 or 4 of the taps.
//         Tap 0 of none of them is there, nor tap 2 of a pixel that is the first of its row or column: 63 of their 144
//         products are zero, and left out.
// Dilated by d: as d x d pictures of every dth pixel in each direction.
// Error   about ten times that of a direct float32 convolution; not for training, and not for the `conv_lstm` op.
// NaN     and infinity reach, as NaN, all 4 x 4 tiles whose 6 x 6 pixels hold one: the neighbours and more.
#pragma once

#include "../ops.h"
#include "../parallel.h"
#include "../simd/math.h"
#include "conv_finish.h"
#include "winograd.h"

namespace unrain::UNRAIN_TIER {

// The matrices of one task: inputs, then products.
struct TaskMatrices {
    Index value_stride, product_stride;  // between two of the 36, in numbers
    TaskMatrices(Index inputs, Index outputs)
        : value_stride(kTaskTiles * inputs + kGap / static_cast<Index>(sizeof(Value))),
          product_stride(kTaskTiles * outputs + kGap / static_cast<Index>(sizeof(float))) {}
    Index value_bytes() const { return kProducts * value_stride * static_cast<Index>(sizeof(Value)); }
    Index bytes() const { return value_bytes() + kProducts * product_stride * static_cast<Index>(sizeof(float)); }
};

struct TilePlace {
    Index image, top, left;
};

// Tiles of one picture down and across. With dilation d their pixels are d apart: there are d tiles for each of a
// square of d x d tiles' rows, and d for each of its columns.
UNRAIN_HD Index tiles_down(const Conv3x3& a) { return ceil_div(a.height, kTile * a.dilation) * a.dilation; }
UNRAIN_HD Index tiles_across(const Conv3x3& a) { return ceil_div(a.width, kTile * a.dilation) * a.dilation; }

// Where along a side the tile starts: one after the other those that share their pixels' remainder.
UNRAIN_HD Index start_of(Index tile, Index dilation, Index tiles) {
    const Index each = tiles / dilation;
    return tile % each * kTile * dilation + tile / each;
}

UNRAIN_HD TilePlace place_of(const Conv3x3& a, Index tile) {
    const Index down = tiles_down(a), across = tiles_across(a), d = a.dilation;
    const Index row = tile / across % down;  // rows of tiles that overlap follow one another: they share a cache
    const Index top = row / d * kTile * d + row % d;
    return {tile / (down * across), top, start_of(tile % across, d, across)};
}

// How many of the tile's pixels along a side are in the picture.
UNRAIN_HD Index pixels_in(Index start, Index side, Index dilation) {
    return start >= side ? 0 : least(kTile, ceil_div(side - start, dilation));
}

template <class T>
void transform_patch(const Conv3x3& a, const T* x, Index channels, TilePlace at, Value* v, Index matrix) {
    const Index d = a.dilation, top = at.top - d, left = at.left - d, beyond = (kPatch - 1) * d;
    x += at.image * a.height * a.width * channels;
    if (top >= 0 && left >= 0 && top + beyond < a.height && left + beyond < a.width) {
        for (Index k = 0; k < channels; k += kLanes) {
            transform_input(x + (top * a.width + left) * channels + k, d * a.width * channels, d * channels, v + k,
                            matrix);
        }
        return;
    }
    float patch[kProducts * kLanes];
    for (Index k = 0; k < channels; k += kLanes) {
        for (Index i = 0; i < kPatch; ++i) {
            for (Index j = 0; j < kPatch; ++j) {
                const Index row = top + i * d, column = left + j * d;
                const bool inside = row >= 0 && row < a.height && column >= 0 && column < a.width;
                const Vec pixel = inside ? load(x + (row * a.width + column) * channels + k) : zero();
                store(patch + (i * kPatch + j) * kLanes, pixel);
            }
        }
        transform_input(patch, kPatch * kLanes, Index{kLanes}, v + k, matrix);
    }
}

// The tile's pixels one after the other, for a 1x1 convolution.
template <class T>
void gather_pixels(const Conv3x3& a, const T* x, Index channels, TilePlace at, Value* v) {
    const Index down = pixels_in(at.top, a.height, 1), across = pixels_in(at.left, a.width, 1);
    for (Index i = 0; i < down; ++i) {
        const T* pixel = x + ((at.image * a.height + at.top + i) * a.width + at.left) * channels;
        for (Index j = 0; j < across; ++j) {
            for (Index k = 0; k < channels; k += kLanes) {
                put(v + (i * kTile + j) * a.inputs + k, load(pixel + j * channels + k));
            }
        }
    }
}

// A vector of channels of a tile, before the bias. `part` counts the pixels (0, 0), (0, 1), (1, 0) and (1, 1) of a
// transposed convolution.
UNRAIN_HD void sums_of(const Conv3x3& a, const float* m, Index matrix, Index part, Vec (&tile)[4][4]) {
    if (a.form == Conv3x3Form::whole) return transform_output<0, 6, 6>(m, matrix, tile);
    if (a.form == Conv3x3Form::transposed) {
        if (part == 0) return transform_output<1, 5, 5>(m, matrix, tile);
        if (part == 1) return transform_output<1, 5, 6>(m, matrix, tile);
        if (part == 2) return transform_output<1, 6, 5>(m, matrix, tile);
        return transform_output<1, 6, 6>(m, matrix, tile);
    }
    for (Index i = 0; i < kTile; ++i) {
        for (Index j = 0; j < kTile; ++j) tile[i][j] = load(m + (i * kTile + j) * a.outputs);
    }
}

// Bias, ReLU or PReLU, sum and ReLU; the first `y_channels` are kept.
template <class Y>
void finish_tile(const Conv3x3& a, TilePlace at, const float* m, Index matrix) {
    // In variables of its own: the stores below might change the fields, for all that the compiler knows.
    const Index channels = a.y_channels, d = a.dilation, scale = a.form == Conv3x3Form::transposed ? 2 : 1;
    const Index down = pixels_in(at.top, a.height, d), across = pixels_in(at.left, a.width, d);
    const Index right = d * scale * channels, below = right * a.width * scale;
    const bool relu = a.relu != 0, leans = a.slope != nullptr, adds = a.add != nullptr, relu_sum = a.relu_sum != 0;
    for (Index k = 0; k < scale * scale * channels; k += kLanes) {
        Vec tile[4][4];
        const Index part = k / channels, channel = k % channels, n = channels - channel;
        sums_of(a, m + k, matrix, part, tile);
        const Vec offset = a.bias != nullptr ? load(a.bias + k) : zero();
        const Vec slope = leans ? load(a.slope + k) : zero();
        const Index row = (at.image * a.height + at.top) * scale + part / 2;
        const Index start = ((row * a.width + at.left) * scale + part % 2) * channels + channel;
        for (Index i = 0; i < down; ++i) {
            Y* y = static_cast<Y*>(a.y) + start + i * below;
            const Y* add = adds ? static_cast<const Y*>(a.add) + start + i * below : nullptr;
            for (Index j = 0; j < across; ++j) {
                Vec result = tile[i][j] + offset;
                if (relu) result = rectified(result);
                if (leans) result = leaned(result, slope);
                if (adds) result = result + load_lanes(add + j * right, n);
                if (relu_sum) result = rectified(result);
                if (n >= kLanes) {
                    put(y + j * right, result);
                } else {
                    store_first(y + j * right, result, n);
                }
            }
        }
    }
}

// The outputs are the gates i, f, g, o (or i, g, o of a first step, which has nothing to forget) of y_channels each.
template <class Y>
void finish_gates_tile(const Conv3x3& a, TilePlace at, const float* m, Index matrix) {
    const float* bias = static_cast<const float*>(a.bias);
    const Index down = pixels_in(at.top, a.height, 1), across = pixels_in(at.left, a.width, 1);
    const bool first = a.gates == 3;
    for (Index k = 0; k < a.y_channels; k += kLanes) {
        Vec gate[4][4][4];
        Vec offset[4];
        for (Index g = 0; g < a.gates; ++g) {
            const Index from = g * a.y_channels + k;
            transform_output<0, 6, 6>(m + from, matrix, gate[g]);
            offset[g] = bias != nullptr ? load(bias + from) : zero();
        }
        for (Index i = 0; i < down; ++i) {
            const Index pixel = (at.image * a.height + at.top + i) * a.width + at.left;
            for (Index j = 0; j < across; ++j) {
                const Index to = (pixel + j) * a.y_channels + k;
                const Index g = first ? 1 : 2;
                Vec cell = sigmoid_times_tanh(gate[0][i][j] + offset[0], gate[g][i][j] + offset[g]);
                if (!first) {
                    const Vec state = load(static_cast<const float*>(a.c) + to);
                    cell = fma(sigmoid(gate[1][i][j] + offset[1]), state, cell);
                }
                store(static_cast<float*>(a.c_next) + to, cell);
                put(static_cast<Y*>(a.y) + to, sigmoid_times_tanh(gate[g + 1][i][j] + offset[g + 1], cell));
            }
        }
    }
}

// Of one of the 36 products, or of the only one of a 1x1 convolution, those outputs that are not zero anyway.
static void multiply_outputs(const Conv3x3& a, Index product, const Value* v, float* m, Index rows) {
    const Value* weight = static_cast<const Value*>(a.weight) + product * a.inputs * a.outputs;
    if (a.form != Conv3x3Form::transposed) return multiply(v, weight, m, rows, a.inputs, a.outputs, 0, a.outputs);
    const Index row = product / kPatch, column = product % kPatch, last = kPatch - 1;
    if (row == 0 || column == 0) return;
    for (Index part = 0; part < 4; ++part) {
        if ((row == last && part / 2 == 0) || (column == last && part % 2 == 0)) continue;
        multiply(v, weight, m, rows, a.inputs, a.outputs, part * a.y_channels, (part + 1) * a.y_channels);
    }
}

template <class T, class Y>
void conv3x3_typed(const Conv3x3& a) {
    const bool pointwise = a.form == Conv3x3Form::pointwise;
    const Index tiles = a.batch * tiles_down(a) * tiles_across(a), rows = pointwise ? kTile * kTile : 1;
    const TaskMatrices matrices(a.inputs, a.outputs);
    const auto work = static_cast<std::size_t>(tiles * kProducts * a.outputs) * sizeof(float);
    for_each_task(ceil_div(tiles, kTaskTiles), work, a.threads, [&](Index task, int slot) {
        char* mine = static_cast<char*>(a.workspace) + slot * matrices.bytes();
        Value* values = reinterpret_cast<Value*>(mine);
        float* products = reinterpret_cast<float*>(mine + matrices.value_bytes());
        const Index first = task * kTaskTiles, count = least(kTaskTiles, tiles - first);
        for (Index t = 0; t < count; ++t) {
            const TilePlace at = place_of(a, first + t);
            Value* v = values + t * rows * a.inputs;
            for (int source = 0; source < kMostMaps && a.x_channels[source] > 0; ++source) {
                const Index channels = a.x_channels[source];
                if (pointwise) {
                    gather_pixels(a, static_cast<const T*>(a.x[source]), channels, at, v);
                } else {
                    transform_patch(a, static_cast<const T*>(a.x[source]), channels, at, v, matrices.value_stride);
                }
                v += channels;
            }
        }
        for (Index p = 0; p < (pointwise ? 1 : kProducts); ++p) {
            multiply_outputs(a, p, values + p * matrices.value_stride, products + p * matrices.product_stride,
                             count * rows);
        }
        for (Index t = 0; t < count; ++t) {
            const TilePlace at = place_of(a, first + t);
            const float* m = products + t * rows * a.outputs;
            if (a.gates != 0) {
                finish_gates_tile<Y>(a, at, m, matrices.product_stride);
            } else {
                finish_tile<Y>(a, at, m, matrices.product_stride);
            }
        }
    });
}

static const char* conv3x3(const Conv3x3& a, bool) {
    const Index needed = a.threads * TaskMatrices(a.inputs, a.outputs).bytes();
    if (a.workspace_bytes < needed) return "workspace is too small: see conv3x3_workspace";
    if (a.dtype == DType::f32) {
        conv3x3_typed<float, float>(a);
    } else if (a.y_dtype == DType::f32) {
        conv3x3_typed<bf16, float>(a);
    } else {
        conv3x3_typed<bf16, bf16>(a);
    }
    return nullptr;
}

}  // namespace unrain::UNRAIN_TIER
