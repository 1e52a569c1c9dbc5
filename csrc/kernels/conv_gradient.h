// The gradient of a 3x3 convolution to its weights and its bias, by Winograd's form of it: see ConvGradient of
// csrc/conv.h.
//
// With the 6 x 6 pixels d of a tile and the gradients e of its 4 x 4 places it is G^T [sum over tiles of (B^T d B) *
// (A e A^T)] G: of 36 matrix products [inputs, tiles] * [tiles, outputs].
//
// Tiling   some tiles at a time go into two sets of 36 matrices in a second-level cache, which are multiplied into the
//          36 of sums; a few rows of two vectors of those at a time stay in registers for all tiles.
// Threads  chunks of tiles have sums of their own, which are added up in their order: the number of chunks is the
//          picture's alone, and so no bit depends on the threads. It also keeps sums short, and their error small.
// Bound    arithmetic, as the convolution itself: a quarter of the direct multiplications, plus the transforms.
#pragma once

#include <cstring>

#include "conv_winograd.h"

namespace unrain::UNRAIN_TIER {

// Rows of 16 sums that stay in registers: enough of them to hide what a product waits for.
constexpr Index kSumRows = 8 / (kBlock / kLanes) < 4 ? 4 : 8 / (kBlock / kLanes);

// u [inputs, outputs] += v [tiles, inputs]^T * e [tiles, outputs]
static void add_products(const float* v, const float* e, Index tiles, Index inputs, Index outputs, float* u) {
    constexpr Index kPer = kBlock / kLanes;
    for (Index o = 0; o < outputs; o += kBlock) {
        for (Index i = 0; i < inputs; i += kSumRows) {
            float* at = u + i * outputs + o;
            Vec sum[kSumRows][kPer];
            UNRAIN_UNROLL
            for (Index r = 0; r < kSumRows; ++r) {
                UNRAIN_UNROLL
                for (Index n = 0; n < kPer; ++n) sum[r][n] = load(at + r * outputs + n * kLanes);
            }
            for (Index t = 0; t < tiles; ++t) {
                Vec gradient[kPer];
                UNRAIN_UNROLL
                for (Index n = 0; n < kPer; ++n) gradient[n] = load(e + t * outputs + o + n * kLanes);
                UNRAIN_UNROLL
                for (Index r = 0; r < kSumRows; ++r) {
                    const Vec pixel = set1(v[t * inputs + i + r]);
                    UNRAIN_UNROLL
                    for (Index n = 0; n < kPer; ++n) sum[r][n] = fma(pixel, gradient[n], sum[r][n]);
                }
            }
            UNRAIN_UNROLL
            for (Index r = 0; r < kSumRows; ++r) {
                UNRAIN_UNROLL
                for (Index n = 0; n < kPer; ++n) store(at + r * outputs + n * kLanes, sum[r][n]);
            }
        }
    }
}

// The gradients of a tile's places into the 36 matrices, and their sums onto `bias`.
template <class T>
void transform_places(const Tiles& tiles, const T* grad, Index channels, const Tile& at, float* e, Index matrix,
                      float* bias) {
    const Index d = tiles.dilation;
    grad += ((at.image * tiles.height + at.top) * tiles.width + at.left) * channels;
    for (Index k = 0; k < channels; k += kLanes) {
        Vec places[kTile][kTile], sum = zero();
        for (Index i = 0; i < kTile; ++i) {
            for (Index j = 0; j < kTile; ++j) {
                const bool inside = i < at.down && j < at.across;
                places[i][j] = inside ? load(grad + (i * tiles.width + j) * d * channels + k) : zero();
                sum = sum + places[i][j];
            }
        }
        store(bias + k, load(bias + k) + sum);
        transform_gradient(places, e + k, matrix);
    }
}

template <class T>
void sum_chunk(const ConvGradient& a, const GradientPlan& p, const Tiles& tiles, Index chunk, float* sums,
               float* scratch) {
    const Index input_matrix = p.matrix(p.inputs), output_matrix = p.matrix(p.outputs);
    float *v = scratch, *e = v + kProducts * input_matrix, *bias = sums + kProducts * p.sum_matrix();
    std::memset(sums, 0, static_cast<std::size_t>(p.chunk_numbers()) * sizeof(float));
    const Index end = least((chunk + 1) * p.chunk_tiles, p.tiles);
    for (Index first = chunk * p.chunk_tiles; first < end; first += p.at_once) {
        const Index count = least(p.at_once, end - first);
        for (Index t = 0; t < count; ++t) {
            const Tile at = tiles.find(first + t);
            transform_patch(tiles, static_cast<const T*>(a.x), p.inputs, at, v + t * p.inputs, input_matrix);
            transform_places(tiles, static_cast<const T*>(a.grad), p.outputs, at, e + t * p.outputs, output_matrix,
                             bias);
        }
        for (Index k = 0; k < kProducts; ++k) {
            add_products(v + k * input_matrix, e + k * output_matrix, count, p.inputs, p.outputs,
                         sums + k * p.sum_matrix());
        }
    }
}

// One vector of the sums at u, of all chunks.
UNRAIN_HD Vec sum_of_chunks(const GradientPlan& p, const float* u) {
    Vec sum = load(u);
    for (Index chunk = 1; chunk < p.chunks; ++chunk) sum = sum + load(u + chunk * p.chunk_numbers());
    return sum;
}

// The gradients to all taps of one input.
static void finish_input(const ConvGradient& a, const GradientPlan& p, const float* sums, Index input) {
    for (Index o = 0; o < a.outputs; o += kLanes) {
        Vec u[kProducts];
        for (Index k = 0; k < kProducts; ++k) {
            u[k] = sum_of_chunks(p, sums + k * p.sum_matrix() + input * p.outputs + o);
        }
        float taps[9 * kLanes];
        transform_taps(u, taps);
        for (Index lane = 0; lane < least(kLanes, a.outputs - o); ++lane) {
            float* to = a.grad_weight + ((o + lane) * a.inputs + input) * 9;
            for (Index tap = 0; tap < 9; ++tap) to[tap] = taps[tap * kLanes + lane];
        }
    }
}

static void finish_bias(const ConvGradient& a, const GradientPlan& p, const float* sums) {
    if (a.grad_bias == nullptr) return;
    for (Index o = 0; o < a.outputs; o += kLanes) {
        const Vec sum = sum_of_chunks(p, sums + kProducts * p.sum_matrix() + o);
        store_lanes(a.grad_bias + o, sum, a.outputs - o);
    }
}

static const char* conv_gradient(const ConvGradient& a) {
    const GradientPlan p(a);
    const Tiles tiles(a.height, a.width, a.dilation);
    float* sums = static_cast<float*>(a.workspace);
    float* scratch = sums + p.chunks * p.chunk_numbers();
    const auto work = static_cast<std::size_t>(p.tiles * kProducts * (p.inputs + p.outputs)) * sizeof(float);
    for_each_task(p.chunks, work, a.threads, [&](Index chunk, int slot) {
        const auto sum = a.dtype == DType::f32 ? sum_chunk<float> : sum_chunk<bf16>;
        sum(a, p, tiles, chunk, sums + chunk * p.chunk_numbers(), scratch + slot * p.scratch_numbers());
    });
    for_each_task(a.inputs, static_cast<std::size_t>(p.chunks * p.chunk_numbers()) * sizeof(float), a.threads,
                  [&](Index input, int) { finish_input(a, p, sums, input); });
    finish_bias(a, p, sums);
    return nullptr;
}

}  // namespace unrain::UNRAIN_TIER
