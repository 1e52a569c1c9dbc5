// conv3x3: a 3x3 convolution in the channels-last layout by Winograd's F(4x4, 3x3), with what follows it done before
// the result is stored: bias, ReLU or PReLU, a sum; or the gates of a ConvLSTM. For the engine, on weights packed
// beforehand.
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
// Error   about ten times that of a direct float32 convolution; not for training, and not for the `conv_lstm` op.
// NaN     and infinity reach, as NaN, all 4 x 4 tiles whose 6 x 6 pixels hold one: the neighbours and more.
#pragma once

#include "../ops.h"
#include "../parallel.h"
#include "../simd/math.h"
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

UNRAIN_HD TilePlace place_of(const Conv3x3& a, Index tile) {
    const Index down = ceil_div(a.height, kTile), across = ceil_div(a.width, kTile);
    return {tile / (down * across), tile / across % down * kTile, tile % across * kTile};
}

template <class T>
void transform_patch(const Conv3x3& a, const T* x, Index channels, TilePlace at, Value* v, Index matrix) {
    const Index top = at.top - 1, left = at.left - 1;
    x += at.image * a.height * a.width * channels;
    if (top >= 0 && left >= 0 && top + kPatch <= a.height && left + kPatch <= a.width) {
        for (Index k = 0; k < channels; k += kLanes) {
            transform_input(x + (top * a.width + left) * channels + k, a.width * channels, channels, v + k, matrix);
        }
        return;
    }
    float patch[kProducts * kLanes];
    for (Index k = 0; k < channels; k += kLanes) {
        for (Index i = 0; i < kPatch; ++i) {
            for (Index j = 0; j < kPatch; ++j) {
                const Index row = top + i, column = left + j;
                const bool inside = row >= 0 && row < a.height && column >= 0 && column < a.width;
                const Vec pixel = inside ? load(x + (row * a.width + column) * channels + k) : zero();
                store(patch + (i * kPatch + j) * kLanes, pixel);
            }
        }
        transform_input(patch, kPatch * kLanes, Index{kLanes}, v + k, matrix);
    }
}

// Of two numbers one of which is none, max gives the second: NaN stays NaN.
UNRAIN_HD Vec rectified(Vec a) { return max(zero(), a); }

// A PReLU; of NaN both parts are NaN.
UNRAIN_HD Vec leaned(Vec a, Vec slope) { return fma(slope, min(zero(), a), rectified(a)); }

// The pixels (0, 0), (0, 1), (1, 0) and (1, 1) of a transposed convolution are its parts 0 to 3.
UNRAIN_HD void transform_transposed(const float* m, Index matrix, Index part, Vec (&tile)[4][4]) {
    switch (part) {
        case 0: return transform_output<1, 5, 5>(m, matrix, tile);
        case 1: return transform_output<1, 5, 6>(m, matrix, tile);
        case 2: return transform_output<1, 6, 5>(m, matrix, tile);
        default: return transform_output<1, 6, 6>(m, matrix, tile);
    }
}

// Bias, ReLU or PReLU, sum and ReLU; the first `y_channels` are kept.
template <class Y>
void finish_tile(const Conv3x3& a, TilePlace at, const float* m, Index matrix) {
    const float* bias = static_cast<const float*>(a.bias);
    const Index down = least(kTile, a.height - at.top), across = least(kTile, a.width - at.left);
    const Index scale = a.transposed != 0 ? 2 : 1;
    for (Index k = 0; k < scale * scale * a.y_channels; k += kLanes) {
        Vec tile[4][4];
        const Index part = k / a.y_channels, channel = k % a.y_channels, n = a.y_channels - channel;
        if (a.transposed != 0) {
            transform_transposed(m + k, matrix, part, tile);
        } else {
            transform_output<0, 6, 6>(m + k, matrix, tile);
        }
        const Vec offset = bias != nullptr ? load(bias + k) : zero();
        const Vec slope = a.slope != nullptr ? load(a.slope + k) : zero();
        for (Index i = 0; i < down; ++i) {
            const Index row = (at.image * a.height + at.top + i) * scale + part / 2;
            const Index pixel = (row * a.width + at.left) * scale + part % 2;
            for (Index j = 0; j < across; ++j) {
                const Index to = (pixel + j * scale) * a.y_channels + channel;
                Vec result = tile[i][j] + offset;
                if (a.relu != 0) result = rectified(result);
                if (a.slope != nullptr) result = leaned(result, slope);
                if (a.add != nullptr) result = result + load_lanes(static_cast<const Y*>(a.add) + to, n);
                if (a.relu_sum != 0) result = rectified(result);
                if (n >= kLanes) {
                    put(static_cast<Y*>(a.y) + to, result);
                } else {
                    store_first(static_cast<Y*>(a.y) + to, result, n);
                }
            }
        }
    }
}

// The outputs are the gates i, f, g, o (or i, g, o of a first step, which has nothing to forget) of y_channels each.
template <class Y>
void finish_gates(const Conv3x3& a, TilePlace at, const float* m, Index matrix) {
    const float* bias = static_cast<const float*>(a.bias);
    const Index down = least(kTile, a.height - at.top), across = least(kTile, a.width - at.left);
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

template <class T, class Y>
void conv3x3_typed(const Conv3x3& a) {
    const Index tiles = a.batch * ceil_div(a.height, kTile) * ceil_div(a.width, kTile);
    const TaskMatrices matrices(a.inputs, a.outputs);
    const auto work = static_cast<std::size_t>(tiles * kProducts * a.outputs) * sizeof(float);
    for_each_task(ceil_div(tiles, kTaskTiles), work, a.threads, [&](Index task, int slot) {
        char* mine = static_cast<char*>(a.workspace) + slot * matrices.bytes();
        Value* values = reinterpret_cast<Value*>(mine);
        float* products = reinterpret_cast<float*>(mine + matrices.value_bytes());
        const Index first = task * kTaskTiles, count = least(kTaskTiles, tiles - first);
        for (Index t = 0; t < count; ++t) {
            const TilePlace at = place_of(a, first + t);
            Value* v = values + t * a.inputs;
            for (int source = 0; source < kMostMaps && a.x_channels[source] > 0; ++source) {
                transform_patch(a, static_cast<const T*>(a.x[source]), a.x_channels[source], at, v,
                                matrices.value_stride);
                v += a.x_channels[source];
            }
        }
        for (Index p = 0; p < kProducts; ++p) {
            const auto outputs = [&](Index from, Index to) {
                multiply(values + p * matrices.value_stride,
                         static_cast<const Value*>(a.weight) + p * a.inputs * a.outputs,
                         products + p * matrices.product_stride, count, a.inputs, a.outputs, from, to);
            };
            if (a.transposed == 0) {
                outputs(0, a.outputs);
                continue;
            }
            const Index row = p / kPatch, column = p % kPatch, last = kPatch - 1;
            if (row == 0 || column == 0) continue;
            for (Index part = 0; part < 4; ++part) {
                if ((row == last && part / 2 == 0) || (column == last && part % 2 == 0)) continue;
                outputs(part * a.y_channels, (part + 1) * a.y_channels);
            }
        }
        for (Index t = 0; t < count; ++t) {
            const TilePlace at = place_of(a, first + t);
            const float* m = products + t * a.outputs;
            if (a.gates != 0) {
                finish_gates<Y>(a, at, m, matrices.product_stride);
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
