// gaussian_pyramid: reduced levels of an image, box (each from the full image) or binomial (each from the one before).
//
// Layout  pictures of `channels` interleaved numbers: NCHW as many pictures of one channel, NHWC as it is. A row is one
//         array; its horizontal neighbours are `channels` apart.
// Tiling  box: the rows under one row of the coarsest level, for all levels while they are in cache. binomial: 4 rows
// of a
//         level per task, level after level; the second level reads what the first left in the last-level cache.
//         First along the columns into a row of sums, which is split into its even and odd pixels, then along the row.
// Traffic reads N, writes N/4 + N/16 + ... The backward pass reads those and writes N.
// Bound   memory.
#pragma once

#include "../ops.h"
#include "../parallel.h"
#include "../pixel/pyramid.h"
#include "../scratch.h"
#include "../simd/vec.h"
#include "gaussian_pyramid_rows.h"

namespace unrain::UNRAIN_TIER {

constexpr Index kLevelRows = 4;

// ---- binomial ----

template <class T>
const char* binomial_level(const GaussianPyramid& a, const T* from, Index height, Index width, T* to) {
    const Index c = a.channels, row = width * c;
    const Index rows_out = ceil_div(height, 2), row_out = ceil_div(width, 2) * c;
    const Index blocks = ceil_div(rows_out, kLevelRows);
    using Sum = SumOf<T>;
    const HalfRow<Sum> shape(width, c);
    const Index slot_size = ceil_div(row, 64) * 64 + shape.size();
    const Scratch<Sum> scratch(static_cast<std::size_t>(slot_size * a.threads));
    if (scratch.failed()) return kNoMemory;
    const std::size_t bytes = static_cast<std::size_t>(a.pictures * height * row) * sizeof(T) * 5 / 4;
    for_each_task(a.pictures * blocks, bytes, a.threads, [&](Index task, int slot) {
        Sum* sums = scratch.data() + slot * slot_size;
        const HalfRow<Sum> half = shape.at(sums + ceil_div(row, 64) * 64);
        const T* picture = from + task / blocks * height * row;
        T* out = to + task / blocks * rows_out * row_out;
        const Index last = least(rows_out, (task % blocks + 1) * kLevelRows);
        for (Index y = task % blocks * kLevelRows; y < last; ++y) {
            const T* rows[5];
            for (int k = 0; k < 5; ++k) rows[k] = picture + reflect(2 * y + k - 2, height) * row;
            half.fill(rows, sums);
            binomial_row(half, out + y * row_out, row_out);
        }
    });
    return nullptr;
}

template <class T>
const char* binomial_forward(const GaussianPyramid& a) {
    const T* from = static_cast<const T*>(a.x);
    Index height = a.height, width = a.width;
    for (int level = 0; level < a.count; ++level) {
        T* to = static_cast<T*>(a.levels[level]);
        if (const char* wrong = binomial_level(a, from, height, width, to)) return wrong;
        from = to;
        height = ceil_div(height, 2);
        width = ceil_div(width, 2);
    }
    return nullptr;
}

// to = own + the transpose of binomial_level applied to grad; own may be null.
template <class T, class Out>
const char* binomial_level_backward(const GaussianPyramid& a, const float* grad, const T* own, Index height,
                                    Index width, Out* to) {
    const Index c = a.channels, row = width * c;
    const Index rows_in = ceil_div(height, 2), row_in = ceil_div(width, 2) * c;
    const Index blocks = ceil_div(height, 2 * kLevelRows);
    const Index slot_size = ceil_div(row_in, 64) * 64 + ceil_div(row, 64) * 64;
    const Scratch<float> scratch(static_cast<std::size_t>(slot_size * a.threads));
    if (scratch.failed()) return kNoMemory;
    const std::size_t bytes = static_cast<std::size_t>(a.pictures * height * row) * (sizeof(T) + sizeof(Out));
    for_each_task(a.pictures * blocks, bytes, a.threads, [&](Index task, int slot) {
        float* sums = scratch.data() + slot * slot_size;
        float* wide = sums + ceil_div(row_in, 64) * 64;
        const float* picture = grad + task / blocks * rows_in * row_in;
        const Index last = least(height, (task % blocks + 1) * 2 * kLevelRows);
        for (Index y = task % blocks * 2 * kLevelRows; y < last; ++y) {
            const Readers readers(y, height);
            for (Index k = 0; k < row_in; k += kLanes) {
                Vec sum = zero();
                for (int r = 0; r < readers.count; ++r) {
                    const float* p = picture + (readers.first + r) * row_in + k;
                    sum = fma(set1(readers.weight[r]), load_lanes(p, row_in - k), sum);
                }
                store_lanes(sums + k, sum, row_in - k);
            }
            spread_row(sums, wide, width, c);
            const Index at = (task / blocks * height + y) * row;
            for (Index k = 0; k < row; k += kLanes) {
                Vec value = load_lanes(wide + k, row - k);
                if (own != nullptr) value = value + load_lanes(own + at + k, row - k);
                store_lanes(to + at + k, value, row - k);
            }
        }
    });
    return nullptr;
}

// From the coarsest level down; the running sums of the levels between lie in two float buffers that take turns.
template <class T>
const char* binomial_backward(const GaussianPyramid& a) {
    Index heights[kMostLevels + 1] = {a.height}, widths[kMostLevels + 1] = {a.width};
    for (int k = 0; k < a.count; ++k) {
        heights[k + 1] = ceil_div(heights[k], 2);
        widths[k + 1] = ceil_div(widths[k], 2);
    }
    const auto numbers = [&](int level) { return a.pictures * heights[level] * widths[level] * a.channels; };
    const Index larger = numbers(1), smaller = numbers(a.count > 1 ? 2 : 1);
    const Scratch<float> odd(static_cast<std::size_t>(larger)), even(static_cast<std::size_t>(smaller));
    if (odd.failed() || even.failed()) return kNoMemory;
    const auto buffer = [&](int level) { return level % 2 != 0 ? odd.data() : even.data(); };

    const T* coarsest = static_cast<const T*>(a.grad_levels[a.count - 1]);
    float* sum = buffer(a.count);
    for (Index k = 0; k < numbers(a.count); k += kLanes) {
        store_lanes(sum + k, load_lanes(coarsest + k, numbers(a.count) - k), numbers(a.count) - k);
    }
    for (int level = a.count - 1; level > 0; --level) {
        const T* own = static_cast<const T*>(a.grad_levels[level - 1]);
        const char* wrong =
            binomial_level_backward(a, buffer(level + 1), own, heights[level], widths[level], buffer(level));
        if (wrong != nullptr) return wrong;
    }
    return binomial_level_backward<T>(a, buffer(1), nullptr, a.height, a.width, static_cast<T*>(a.grad_x));
}

// ---- box ----

// Whether every factor divides the largest: then one block of rows serves all levels.
inline bool nested(const GaussianPyramid& a, int& largest) {
    largest = a.factors[0];
    for (int k = 1; k < a.count; ++k) largest = a.factors[k] > largest ? a.factors[k] : largest;
    for (int k = 0; k < a.count; ++k) {
        if (largest % a.factors[k] != 0) return false;
    }
    return true;
}

// Rows [first, last) of one level of one picture.
template <class T>
void box_rows(const GaussianPyramid& a, Index picture, int level, Index first, Index last, float* sums) {
    const Index factor = a.factors[level], c = a.channels, row = a.width * c;
    const Index rows_out = ceil_div(a.height, factor), row_out = ceil_div(a.width, factor) * c;
    const T* from = static_cast<const T*>(a.x) + picture * a.height * row;
    T* to = static_cast<T*>(a.levels[level]) + picture * rows_out * row_out;
    for (Index y = first; y < least(last, rows_out); ++y) {
        const Index begin = y * factor, height = least(factor, a.height - begin);
        for (Index k = 0; k < row; k += kLanes) {
            Vec sum = load_lanes(from + begin * row + k, row - k);
            for (Index r = 1; r < height; ++r) sum = sum + load_lanes(from + (begin + r) * row + k, row - k);
            store_lanes(sums + k, sum, row - k);
        }
        box_row(sums, a.width, c, factor, static_cast<float>(height), to + y * row_out);
    }
}

template <class T>
const char* box_forward(const GaussianPyramid& a) {
    int largest;
    const bool together = nested(a, largest);
    const Index slot_size = ceil_div(a.width * a.channels, 64) * 64;
    const Scratch<float> scratch(static_cast<std::size_t>(slot_size * a.threads));
    if (scratch.failed()) return kNoMemory;
    const std::size_t bytes = static_cast<std::size_t>(a.pictures * a.height * a.width * a.channels) * sizeof(T);
    for (int group = 0; group < (together ? 1 : a.count); ++group) {
        const Index tall = together ? largest : a.factors[group];
        const Index blocks = ceil_div(a.height, tall);
        for_each_task(a.pictures * blocks, bytes, a.threads, [&](Index task, int slot) {
            float* sums = scratch.data() + slot * slot_size;
            const Index block = task % blocks;
            for (int level = together ? 0 : group; level < (together ? a.count : group + 1); ++level) {
                const Index rows = tall / a.factors[level];
                box_rows<T>(a, task / blocks, level, block * rows, (block + 1) * rows, sums);
            }
        });
    }
    return nullptr;
}

template <class T>
const char* box_backward(const GaussianPyramid& a) {
    const Index c = a.channels, row = a.width * c;
    const Index slot_size = ceil_div(row, 64) * 64;
    const Scratch<float> scratch(static_cast<std::size_t>(slot_size * a.threads));
    if (scratch.failed()) return kNoMemory;
    const Index blocks = ceil_div(a.height, kLevelRows);
    const std::size_t bytes = static_cast<std::size_t>(a.pictures * a.height * row) * sizeof(T);
    for_each_task(a.pictures * blocks, bytes, a.threads, [&](Index task, int slot) {
        float* sums = scratch.data() + slot * slot_size;
        const Index picture = task / blocks;
        const Index last = least(a.height, (task % blocks + 1) * kLevelRows);
        for (Index y = task % blocks * kLevelRows; y < last; ++y) {
            std::memset(sums, 0, static_cast<std::size_t>(row) * sizeof(float));
            for (int level = 0; level < a.count; ++level) {
                const Index factor = a.factors[level];
                const Index rows_in = ceil_div(a.height, factor), row_in = ceil_div(a.width, factor) * c;
                const T* grad = static_cast<const T*>(a.grad_levels[level]) + (picture * rows_in + y / factor) * row_in;
                const Index height = least(factor, a.height - y / factor * factor);
                box_row_backward(grad, a.width, c, factor, static_cast<float>(height), sums);
            }
            T* to = static_cast<T*>(a.grad_x) + (picture * a.height + y) * row;
            for (Index k = 0; k < row; k += kLanes) store_lanes(to + k, load_lanes(sums + k, row - k), row - k);
        }
    });
    return nullptr;
}

template <class T>
const char* gaussian_pyramid_typed(const GaussianPyramid& a, bool backward) {
    const bool box = a.kernel == PyramidKernel::box;
    if (backward) return box ? box_backward<T>(a) : binomial_backward<T>(a);
    return box ? box_forward<T>(a) : binomial_forward<T>(a);
}

static const char* gaussian_pyramid(const GaussianPyramid& a, bool backward) {
    if (a.dtype == DType::f32) return gaussian_pyramid_typed<float>(a, backward);
    if (a.dtype == DType::bf16) return gaussian_pyramid_typed<bf16>(a, backward);
    return a.kernel == PyramidKernel::box ? box_forward<std::uint8_t>(a) : binomial_forward<std::uint8_t>(a);
}

}  // namespace unrain::UNRAIN_TIER
