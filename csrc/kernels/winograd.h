// Winograd's minimal filtering F(4x4, 3x3): 16 pixels of a 3x3 convolution from 36 products in place of 144.
//
// A tile is 4 x 4 output pixels. Its 6 x 6 input pixels d become B^T d B, the 3 x 3 taps g are G g G^T beforehand,
// their products are summed over the input channels, which is 36 matrix products over all tiles of a task, and A^T m A
// is the result. The transforms run over channels, a vector of them at a time.
#pragma once

#include "conv_products.h"

namespace unrain::UNRAIN_TIER {

constexpr Index kTile = 4, kPatch = 6, kProducts = kPatch * kPatch;
constexpr Index kTaskTiles = 24;  // tiles of one task: their 36 matrices stay in the second-level cache
constexpr Index kGap = 64;        // bytes between matrices, so that they do not fall on the same lines of a cache

// The points of interpolation are 0, +-sqrt(1/2), +-sqrt(2) and infinity: of all that cost as much they lose the least
// to rounding, in bfloat16 half of what the usual 0, +-1, +-2 lose.
constexpr float kInner = 0.707106781F, kOuter = 1.41421356F;

// Six numbers of a row or column by B^T.
UNRAIN_HD void input_row(const Vec (&d)[6], Vec (&t)[6]) {
    const Vec half = set1(0.5F), two = set1(2.0F), both = set1(2.5F), inner = set1(kInner), outer = set1(kOuter);
    const Vec a = fnma(two, d[2], d[4]), b = fnma(two, d[1], d[3]);
    const Vec c = fnma(half, d[2], d[4]), e = fnma(half, d[1], d[3]);
    t[0] = fnma(both, d[2], d[0] + d[4]);
    t[1] = fma(inner, b, a);
    t[2] = fnma(inner, b, a);
    t[3] = fma(outer, e, c);
    t[4] = fnma(outer, e, c);
    t[5] = fnma(both, d[3], d[1] + d[5]);
}

// Six numbers by A^T.
UNRAIN_HD void output_row(const Vec (&m)[6], Vec (&y)[4]) {
    const Vec s = m[1] + m[2], d = m[1] - m[2], p = m[3] + m[4], q = m[3] - m[4];
    y[0] = m[0] + s + p;
    y[1] = fma(set1(kOuter), q, set1(kInner) * d);
    y[2] = fma(set1(2.0F), p, set1(0.5F) * s);
    y[3] = fma(set1(2.0F * kOuter), q, fma(set1(0.5F * kInner), d, m[5]));
}

// A vector of channels of one patch; `row` and `column` are the distances between its pixels, `matrix` that of the 36
// results.
template <class T>
UNRAIN_HD void transform_input(const T* x, Index row, Index column, Value* v, Index matrix) {
    Vec t[6][6];  // [column][row]
    UNRAIN_UNROLL
    for (Index j = 0; j < 6; ++j) {
        const T* p = x + j * column;
        const Vec d[6] = {load(p),           load(p + row),     load(p + 2 * row),
                          load(p + 3 * row), load(p + 4 * row), load(p + 5 * row)};
        input_row(d, t[j]);
    }
    UNRAIN_UNROLL
    for (Index i = 0; i < 6; ++i) {
        const Vec d[6] = {t[0][i], t[1][i], t[2][i], t[3][i], t[4][i], t[5][i]};
        Vec r[6];
        input_row(d, r);
        UNRAIN_UNROLL
        for (Index j = 0; j < 6; ++j) put(v + (6 * i + j) * matrix, r[j]);
    }
}

// A vector of channels of one tile, from its 36 products to 4 x 4 pixels. Where rows and columns of products before
// kFirst, or from kRows and kColumns on, are zero whatever the picture is, they need not be there.
template <Index kFirst, Index kRows, Index kColumns>
UNRAIN_HD void transform_output(const float* m, Index matrix, Vec (&y)[4][4]) {
    Vec t[6][4];
    UNRAIN_UNROLL
    for (Index i = 0; i < 6; ++i) {
        Vec r[6];
        UNRAIN_UNROLL
        for (Index j = 0; j < 6; ++j) {
            const bool there = i >= kFirst && i < kRows && j >= kFirst && j < kColumns;
            r[j] = there ? load(m + (6 * i + j) * matrix) : zero();
        }
        output_row(r, t[i]);
    }
    UNRAIN_UNROLL
    for (Index j = 0; j < 4; ++j) {
        const Vec r[6] = {t[0][j], t[1][j], t[2][j], t[3][j], t[4][j], t[5][j]};
        Vec column[4];
        output_row(r, column);
        UNRAIN_UNROLL
        for (Index i = 0; i < 4; ++i) y[i][j] = column[i];
    }
}

// c [kRows tiles, kColumns vectors of outputs] = v [kRows, inputs] * u [inputs, outputs], all of it in registers.
template <Index kRows, Index kColumns>
UNRAIN_HD void multiply_block(const Value* v, const Value* u, float* c, Index inputs, Index outputs) {
    Vec sum[kRows][kColumns];
    UNRAIN_UNROLL
    for (Index r = 0; r < kRows; ++r) {
        UNRAIN_UNROLL
        for (Index n = 0; n < kColumns; ++n) sum[r][n] = zero();
    }
    for (Index k = 0; k < inputs; k += kDepth) {
        decltype(load_outputs(u)) taps[kColumns];
        UNRAIN_UNROLL
        for (Index n = 0; n < kColumns; ++n) taps[n] = load_outputs(u + k * outputs + n * kLanes * kDepth);
        UNRAIN_UNROLL
        for (Index r = 0; r < kRows; ++r) {
            const auto value = repeat(v + r * inputs + k);
            UNRAIN_UNROLL
            for (Index n = 0; n < kColumns; ++n) sum[r][n] = multiply_add(value, taps[n], sum[r][n]);
        }
    }
    UNRAIN_UNROLL
    for (Index r = 0; r < kRows; ++r) {
        UNRAIN_UNROLL
        for (Index n = 0; n < kColumns; ++n) store(c + r * outputs + n * kLanes, sum[r][n]);
    }
}

template <Index kRows, Index kColumns>
UNRAIN_HD Index multiply_columns(const Value* v, const Value* u, float* c, Index tiles, Index inputs, Index outputs,
                                 Index from, Index to) {
    for (; from + kColumns * kLanes <= to; from += kColumns * kLanes) {
        for (Index t = 0; t < tiles; t += kRows) {
            multiply_block<kRows, kColumns>(v + t * inputs, u + from * kDepth, c + t * outputs + from, inputs, outputs);
        }
    }
    return from;
}

// One of the 36 products for all tiles of a task and the outputs in [from, to). Rows up to the next multiple of the
// block are computed from whatever lies there, and never read.
static void multiply(const Value* v, const Value* u, float* c, Index tiles, Index inputs, Index outputs, Index from,
                     Index to) {
    if constexpr (kLanes >= 16) {  // 32 registers
        from = multiply_columns<6, 4>(v, u, c, tiles, inputs, outputs, from, to);
        from = multiply_columns<12, 2>(v, u, c, tiles, inputs, outputs, from, to);
        multiply_columns<12, 1>(v, u, c, tiles, inputs, outputs, from, to);
    } else {
        from = multiply_columns<6, 2>(v, u, c, tiles, inputs, outputs, from, to);
        multiply_columns<6, 1>(v, u, c, tiles, inputs, outputs, from, to);
    }
}

}  // namespace unrain::UNRAIN_TIER
