// What memory_read and memory_update share: queries are taken 2 vectors at a time and turned, so that a lane is a
// query; norms, scores, softmax and sums are then plain vertical arithmetic, and the [N,M] matrix exists one block at a
// time.
#pragma once

#include "../ops.h"
#include "../parallel.h"
#include "../scratch.h"
#include "../simd/math.h"

namespace unrain::UNRAIN_TIER {

constexpr Index kQueries = 2 * kLanes;  // of one block
constexpr float kSmallestNorm = 1e-12F;

#if defined(UNRAIN_SIMD_AVX512) || defined(UNRAIN_SIMD_NEON)
constexpr int kRowsAtOnce = 12;  // 24 sums in 32 registers
#else
constexpr int kRowsAtOnce = 6;  // 12 sums in 16 registers
#endif

// turned[c][q] = rows[q][c] for `count` rows of `columns` numbers; lanes without a row are zero.
template <class T>
void turn_in(const T* rows, Index count, Index columns, float* turned) {
    for (Index lane = 0; lane < kQueries; lane += kLanes) {
        for (Index c = 0; c < columns; c += kLanes) {
            Vec r[kLanes];
            for (Index i = 0; i < kLanes; ++i) {
                r[i] = lane + i < count ? load_lanes(rows + (lane + i) * columns + c, columns - c) : zero();
            }
            transpose(r);
            const Index here = least(kLanes, columns - c);
            for (Index i = 0; i < here; ++i) store(turned + (c + i) * kQueries + lane, r[i]);
        }
    }
}

template <class T>
void turn_out(const float* turned, Index count, Index columns, T* rows) {
    for (Index lane = 0; lane < kQueries && lane < count; lane += kLanes) {
        for (Index c = 0; c < columns; c += kLanes) {
            Vec r[kLanes];
            for (Index i = 0; i < kLanes; ++i) {
                r[i] = c + i < columns ? load(turned + (c + i) * kQueries + lane) : zero();
            }
            transpose(r);
            for (Index i = 0; i < kLanes && lane + i < count; ++i) {
                store_lanes(rows + (lane + i) * columns + c, r[i], columns - c);
            }
        }
    }
}

template <int kRows>
UNRAIN_HD void product_rows(const float* a, Index row_step, Index inner_step, Index inner, const float* b, float* out) {
    Vec sum[kRows][2];
    for (int i = 0; i < kRows; ++i) sum[i][0] = sum[i][1] = zero();
    for (Index k = 0; k < inner; ++k) {
        const Vec b0 = load(b + k * kQueries), b1 = load(b + k * kQueries + kLanes);
        for (int i = 0; i < kRows; ++i) {
            const Vec factor = set1(a[i * row_step + k * inner_step]);
            sum[i][0] = fma(factor, b0, sum[i][0]);
            sum[i][1] = fma(factor, b1, sum[i][1]);
        }
    }
    for (int i = 0; i < kRows; ++i) {
        store(out + i * kQueries, sum[i][0]);
        store(out + i * kQueries + kLanes, sum[i][1]);
    }
}

// out[i][q] = sum over k of a[i * row_step + k * inner_step] * b[k][q]
inline void product(const float* a, Index row_step, Index inner_step, Index rows, Index inner, const float* b,
                    float* out) {
    Index i = 0;
    for (; i + kRowsAtOnce <= rows; i += kRowsAtOnce) {
        product_rows<kRowsAtOnce>(a + i * row_step, row_step, inner_step, inner, b, out + i * kQueries);
    }
    for (; i + 4 <= rows; i += 4) product_rows<4>(a + i * row_step, row_step, inner_step, inner, b, out + i * kQueries);
    for (; i < rows; ++i) product_rows<1>(a + i * row_step, row_step, inner_step, inner, b, out + i * kQueries);
}

template <int kRows, class T>
UNRAIN_HD void outer_rows(const float* factors, const T* rows, Index count, Index columns, Index c, float* sums) {
    const Index n = columns - c;
    const bool two = n > kLanes;
    Vec sum[kRows][2];
    for (int i = 0; i < kRows; ++i) sum[i][0] = sum[i][1] = zero();
    for (Index q = 0; q < count; ++q) {
        const Vec r0 = load_lanes(rows + q * columns + c, n);
        const Vec r1 = two ? load_lanes(rows + q * columns + c + kLanes, n - kLanes) : zero();
        for (int i = 0; i < kRows; ++i) {
            const Vec factor = set1(factors[i * kQueries + q]);
            sum[i][0] = fma(factor, r0, sum[i][0]);
            sum[i][1] = fma(factor, r1, sum[i][1]);
        }
    }
    // A block is summed by itself and then added: long sums in float keep their digits that way.
    for (int i = 0; i < kRows; ++i) {
        float* to = sums + i * columns + c;
        store_lanes(to, load_lanes(to, n) + sum[i][0], n);
        if (two) store_lanes(to + kLanes, load_lanes(to + kLanes, n - kLanes) + sum[i][1], n - kLanes);
    }
}

// sums[i][c] += sum over the block's queries of factors[i][q] * rows[q][c]
template <class T>
void add_outer(const float* factors, Index items, const T* rows, Index count, Index columns, float* sums) {
    for (Index c = 0; c < columns; c += 2 * kLanes) {
        Index i = 0;
        for (; i + kRowsAtOnce <= items; i += kRowsAtOnce) {
            outer_rows<kRowsAtOnce>(factors + i * kQueries, rows, count, columns, c, sums + i * columns);
        }
        for (; i + 4 <= items; i += 4)
            outer_rows<4>(factors + i * kQueries, rows, count, columns, c, sums + i * columns);
        for (; i < items; ++i) outer_rows<1>(factors + i * kQueries, rows, count, columns, c, sums + i * columns);
    }
}

// Per lane, the sum over the columns of a[c][lane] * b[c][lane]; two running sums, for half the rounding.
inline Vec lane_products(const float* a, const float* b, Index columns) {
    Vec even = zero(), odd = zero();
    Index c = 0;
    for (; c + 2 <= columns; c += 2) {
        even = fma(load(a + c * kQueries), load(b + c * kQueries), even);
        odd = fma(load(a + (c + 1) * kQueries), load(b + (c + 1) * kQueries), odd);
    }
    if (c < columns) even = fma(load(a + c * kQueries), load(b + c * kQueries), even);
    return even + odd;
}

// One over the length of each lane's query, and the same with 0 where the length is too small to have a direction.
inline void inverse_lengths(const float* turned, Index columns, float* inverse, float* direction) {
    for (Index lane = 0; lane < kQueries; lane += kLanes) {
        const Vec length = sqrt(lane_products(turned + lane, turned + lane, columns)),
                  least_length = set1(kSmallestNorm);
        const Vec one_over = set1(1.0F) / max(least_length, length);
        store(inverse + lane, one_over);
        // Less-than is false for NaN, which thereby goes on as NaN.
        store(direction + lane, select(less(length, least_length), zero(), one_over));
    }
}

// The length of one row, held above zero. Items are few: they can afford double.
inline double row_length(const float* row, Index columns) {
    double square = 0;
    for (Index k = 0; k < columns; ++k) square += static_cast<double>(row[k]) * static_cast<double>(row[k]);
    const double length = std::sqrt(square);
    return length < static_cast<double>(kSmallestNorm) ? static_cast<double>(kSmallestNorm) : length;
}

// The items in float, as they are and at length one.
template <class T>
struct Items {
    Index count, columns;
    const float *raw, *unit;

    static Index size(Index count, Index columns) { return 2 * count * columns; }
    Items(Index m, Index c, const float* plain, const float* scaled) : count(m), columns(c), raw(plain), unit(scaled) {}
    Items(const T* items, Index m, Index c, float* memory) : count(m), columns(c) {
        float *plain = memory, *scaled = memory + m * c;
        for (Index i = 0; i < m; ++i) {
            for (Index k = 0; k < c; ++k) plain[i * c + k] = load_one(items + i * c + k);
            const double length = row_length(plain + i * c, c);
            for (Index k = 0; k < c; ++k)
                scaled[i * c + k] = static_cast<float>(static_cast<double>(plain[i * c + k]) / length);
        }
        raw = plain;
        unit = scaled;
    }
};

// to[k] = extra[k] + the derivative of rows / |rows| for one row: (grad - unit (grad . unit)) / |row|
inline void unit_backward(const float* grad, const float* row, const float* extra, Index columns, float* to) {
    const double length = row_length(row, columns);
    double along = 0;
    if (length > static_cast<double>(kSmallestNorm)) {
        for (Index k = 0; k < columns; ++k)
            along += static_cast<double>(grad[k]) * (static_cast<double>(row[k]) / length);
    }
    for (Index k = 0; k < columns; ++k) {
        const double slope = (static_cast<double>(grad[k]) - static_cast<double>(row[k]) / length * along) / length;
        to[k] = static_cast<float>(static_cast<double>(extra[k]) + slope);
    }
}

// grad[c][q] (to the unit queries) becomes the gradient to the queries themselves.
inline void turn_unit_backward(const float* turned, const float* inverse, const float* direction, Index columns,
                               float* grad) {
    for (Index lane = 0; lane < kQueries; lane += kLanes) {
        const Vec over = load(inverse + lane), toward = load(direction + lane);
        const Vec along = lane_products(grad + lane, turned + lane, columns) * over * toward;
        for (Index c = 0; c < columns; ++c) {
            float* g = grad + c * kQueries + lane;
            store(g, fnma(load(turned + c * kQueries + lane) * over, along, load(g) * over));
        }
    }
}

// Queries per task: as many as make at most 64 tasks, so that partial sums of the items stay few.
inline Index queries_per_task(Index queries) { return ceil_div(most(512, ceil_div(queries, 64)), kQueries) * kQueries; }

// total[k] = the tasks' partial sums, in their order.
inline void add_partial_sums(const float* partial, Index tasks, Index numbers, Index stride, float* total) {
    for (Index k = 0; k < numbers; k += kLanes) {
        Vec sum = zero();
        for (Index task = 0; task < tasks; ++task) sum = sum + load_lanes(partial + task * stride + k, numbers - k);
        store_lanes(total + k, sum, numbers - k);
    }
}

}  // namespace unrain::UNRAIN_TIER
