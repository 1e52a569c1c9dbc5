// Winograd's F(4x4, 3x3): what a tile's pixels and products go through, a vector of channels at a time.
#pragma once

#include "../conv_plan.h"
#include "conv_products.h"

namespace unrain::UNRAIN_TIER {

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
template <class T, class V>
UNRAIN_HD void transform_input(const T* x, Index row, Index column, V* v, Index matrix) {
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

// A vector of outputs of one tile, from its 36 products, kBlock numbers apart, to `each(i, j, pixel)` of 4 x 4.
template <class Each>
UNRAIN_HD void transform_output(const float* m, const Each& each) {
    Vec t[6][4];
    UNRAIN_UNROLL
    for (Index i = 0; i < 6; ++i) {
        Vec r[6];
        UNRAIN_UNROLL
        for (Index j = 0; j < 6; ++j) r[j] = load(m + (6 * i + j) * kBlock);
        output_row(r, t[i]);
    }
    UNRAIN_UNROLL
    for (Index j = 0; j < 4; ++j) {
        const Vec r[6] = {t[0][j], t[1][j], t[2][j], t[3][j], t[4][j], t[5][j]};
        Vec column[4];
        output_row(r, column);
        UNRAIN_UNROLL
        for (Index i = 0; i < 4; ++i) each(i, j, column[i]);
    }
}

// Four gradients of a row or column by A.
UNRAIN_HD void gradient_row(const Vec (&y)[4], Vec (&m)[6]) {
    const Vec half = set1(0.5F), two = set1(2.0F), inner = set1(kInner), outer = set1(kOuter);
    const Vec a = fma(half, y[2], y[0]), b = fma(half, y[3], y[1]);
    const Vec c = fma(two, y[2], y[0]), e = fma(two, y[3], y[1]);
    m[0] = y[0];
    m[1] = fma(inner, b, a);
    m[2] = fnma(inner, b, a);
    m[3] = fma(outer, e, c);
    m[4] = fnma(outer, e, c);
    m[5] = y[3];
}

// Six sums of products by G^T.
UNRAIN_HD void tap_row(const Vec (&u)[6], Vec (&g)[3]) {
    const Vec s = u[1] + u[2], d = u[2] - u[1], p = u[3] + u[4], q = u[3] - u[4];
    g[0] = fma(set1(1.0F / 6), p, fnma(set1(2.0F / 3), s, u[0]));
    g[1] = fma(set1(kOuter / 6), q, set1(kOuter / 3) * d);
    g[2] = fma(set1(1.0F / 3), p - s, u[5]);
}

// A vector of channels of the gradients of one tile's places; `matrix` is the distance between the 36 results.
UNRAIN_HD void transform_gradient(const Vec (&places)[4][4], float* e, Index matrix) {
    Vec t[4][6];  // [row][column]
    UNRAIN_UNROLL
    for (Index i = 0; i < 4; ++i) gradient_row(places[i], t[i]);
    UNRAIN_UNROLL
    for (Index j = 0; j < 6; ++j) {
        const Vec column[4] = {t[0][j], t[1][j], t[2][j], t[3][j]};
        Vec r[6];
        gradient_row(column, r);
        UNRAIN_UNROLL
        for (Index i = 0; i < 6; ++i) store(e + (6 * i + j) * matrix, r[i]);
    }
}

// A vector of outputs of the 36 sums of products, to the gradients of the 9 taps, a vector each.
UNRAIN_HD void transform_taps(const Vec (&u)[36], float* taps) {
    Vec t[6][3];  // [row][tap of the column]
    for (Index i = 0; i < 6; ++i) {
        const Vec row[6] = {u[6 * i], u[6 * i + 1], u[6 * i + 2], u[6 * i + 3], u[6 * i + 4], u[6 * i + 5]};
        tap_row(row, t[i]);
    }
    for (Index j = 0; j < 3; ++j) {
        const Vec column[6] = {t[0][j], t[1][j], t[2][j], t[3][j], t[4][j], t[5][j]};
        Vec g[3];
        tap_row(column, g);
        for (Index i = 0; i < 3; ++i) store(taps + (3 * i + j) * kLanes, g[i]);
    }
}

}  // namespace unrain::UNRAIN_TIER
