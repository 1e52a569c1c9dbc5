// The bodies of the pyramid's CUDA kernels, written for any number of cooperating threads: `team.rank()` of
// `team.size()`, with `team.wait()` between phases. One thread that waits for nobody is such a team too: so the tests
// run them on the host.
#pragma once

#include "../ops.h"
#include "pyramid.h"

namespace unrain::UNRAIN_TIER {

UNRAIN_HD std::ptrdiff_t levels_of(std::ptrdiff_t length, int factor) { return (length + factor - 1) / factor; }

// Where number `index` of [pictures, height, width, channels] lies. Tensors have less than 2^31 numbers, and 32-bit
// divisions are several times as fast on a GPU.
struct Place {
    std::ptrdiff_t picture, y, x, c;
};
UNRAIN_HD Place place_of(std::ptrdiff_t index, std::ptrdiff_t height, std::ptrdiff_t width, std::ptrdiff_t channels) {
    const auto h = static_cast<std::uint32_t>(height), w = static_cast<std::uint32_t>(width);
    const auto c = static_cast<std::uint32_t>(channels), i = static_cast<std::uint32_t>(index);
    const std::uint32_t pixel = i / c, row = pixel / w;
    return {row / h, row % h, pixel % w, i % c};
}

// ---- box: one output each, all levels numbered through ----

UNRAIN_HD std::ptrdiff_t level_numbers(const GaussianPyramid& a, int level) {
    const int factor = a.factors[level];
    return a.pictures * levels_of(a.height, factor) * levels_of(a.width, factor) * a.channels;
}

template <class T>
UNRAIN_HD void box_output(const GaussianPyramid& a, std::ptrdiff_t index) {
    int level = 0;
    while (index >= level_numbers(a, level)) index -= level_numbers(a, level++);
    const int factor = a.factors[level];
    const std::ptrdiff_t width = levels_of(a.width, factor), height = levels_of(a.height, factor);
    const auto [picture, y, x, c] = place_of(index, height, width, a.channels);
    const std::ptrdiff_t bottom = (y + 1) * factor < a.height ? (y + 1) * factor : a.height;
    const std::ptrdiff_t right = (x + 1) * factor < a.width ? (x + 1) * factor : a.width;
    const T* from = static_cast<const T*>(a.x) + picture * a.height * a.width * a.channels + c;
    float sum = 0.0F;
    for (std::ptrdiff_t row = y * factor; row < bottom; ++row) {
        for (std::ptrdiff_t column = x * factor; column < right; ++column) {
            sum += load_one(from + (row * a.width + column) * a.channels);
        }
    }
    const float pixels = static_cast<float>((bottom - y * factor) * (right - x * factor));
    store_one(static_cast<T*>(a.levels[level]) + index, level_value(sum, pixels, sizeof(T) == 1));
}

// One number of the gradient to x.
template <class T>
UNRAIN_HD void box_gradient(const GaussianPyramid& a, std::ptrdiff_t index) {
    const auto [picture, y, x, c] = place_of(index, a.height, a.width, a.channels);
    float sum = 0.0F;
    for (int level = 0; level < a.count; ++level) {
        const int factor = a.factors[level];
        const std::ptrdiff_t width = levels_of(a.width, factor), height = levels_of(a.height, factor);
        const std::ptrdiff_t row = y / factor, column = x / factor;
        const std::ptrdiff_t tall = (row + 1) * factor < a.height ? factor : a.height - row * factor;
        const std::ptrdiff_t wide = (column + 1) * factor < a.width ? factor : a.width - column * factor;
        const std::ptrdiff_t at = ((picture * height + row) * width + column) * a.channels + c;
        sum += load_one(static_cast<const T*>(a.grad_levels[level]) + at) / static_cast<float>(tall * wide);
    }
    store_one(static_cast<T*>(a.grad_x) + index, sum);
}

// ---- binomial: up to three levels at once, a tile of the coarsest per team ----

constexpr int kTile = 16;  // side of a tile of the coarsest level
constexpr int kMostAtOnce = 3;
constexpr int kSharedNumbers = 73 * 73 + 35 * 35;  // the two finer levels under a tile of three, borders included

// Levels [first, first + count) of the pyramid: `from` is the level before them.
struct LevelGroup {
    const void* from;
    std::ptrdiff_t height, width;  // of `from`
    int first, count;
};

UNRAIN_HD std::ptrdiff_t halved(std::ptrdiff_t length, int times) {
    for (; times > 0; --times) length = (length + 1) / 2;
    return length;
}

// The stretch of a level that a tile of the group's coarsest level rests on.
struct Stretch {
    std::ptrdiff_t begin, end;
};
UNRAIN_HD Stretch stretch_under(std::ptrdiff_t tile, std::ptrdiff_t length, int below) {
    Stretch s{tile * kTile, (tile + 1) * kTile};
    for (; below > 0; --below) s = {2 * s.begin - 2, 2 * s.end + 1};
    // Reflection only ever looks at pixels this close to the border, which the stretch then holds as well.
    return {s.begin > 0 ? s.begin : 0, s.end < length ? s.end : length};
}

template <class T, class Read>
UNRAIN_HD float binomial_at(const Read& read, std::ptrdiff_t y, std::ptrdiff_t x, std::ptrdiff_t height,
                            std::ptrdiff_t width) {
    float rows[5];
    for (int k = 0; k < 5; ++k) {
        const std::ptrdiff_t row = reflect(2 * y + k - 2, height);
        rows[k] = binomial(read(row, reflect(2 * x - 2, width)), read(row, reflect(2 * x - 1, width)), read(row, 2 * x),
                           read(row, reflect(2 * x + 1, width)), read(row, reflect(2 * x + 2, width)));
    }
    return level_value(binomial(rows[0], rows[1], rows[2], rows[3], rows[4]), 256.0F, sizeof(T) == 1);
}

// One tile (tile_y, tile_x) of channel c of a picture; `shared` holds kSharedNumbers.
template <class T, class Team>
UNRAIN_HD void binomial_tile(const GaussianPyramid& a, const LevelGroup& group, std::ptrdiff_t picture,
                             std::ptrdiff_t c, std::ptrdiff_t tile_y, std::ptrdiff_t tile_x, float* shared,
                             const Team& team) {
    const T* base = static_cast<const T*>(group.from) + picture * group.height * group.width * a.channels + c;
    const float* finer = nullptr;  // the level before, in shared memory, and where it lies
    Stretch finer_rows{0, 0}, finer_columns{0, 0};
    for (int k = 1; k <= group.count; ++k) {
        const int below = group.count - k;
        const std::ptrdiff_t height = halved(group.height, k), width = halved(group.width, k);
        const std::ptrdiff_t height_before = halved(group.height, k - 1), width_before = halved(group.width, k - 1);
        const Stretch rows = stretch_under(tile_y, height, below), columns = stretch_under(tile_x, width, below);
        // Of what a tile needs, it writes what is its own: the tiles' own parts cover the level without overlap.
        const std::ptrdiff_t own = static_cast<std::ptrdiff_t>(kTile) << below;
        const std::ptrdiff_t wide = columns.end - columns.begin, all = (rows.end - rows.begin) * wide;
        T* out = static_cast<T*>(a.levels[group.first + k - 1]) + picture * height * width * a.channels + c;
        for (std::ptrdiff_t i = team.rank(); i < all; i += team.size()) {
            const int line = static_cast<int>(i) / static_cast<int>(wide);
            const std::ptrdiff_t y = rows.begin + line, x = columns.begin + (i - line * wide);
            float value;
            if (k == 1) {
                const auto read = [&](std::ptrdiff_t row, std::ptrdiff_t column) {
                    return load_one(base + (row * group.width + column) * a.channels);
                };
                value = binomial_at<T>(read, y, x, height_before, width_before);
            } else {
                const std::ptrdiff_t pitch = finer_columns.end - finer_columns.begin;
                const auto read = [&](std::ptrdiff_t row, std::ptrdiff_t column) {
                    return finer[(row - finer_rows.begin) * pitch + column - finer_columns.begin];
                };
                value = binomial_at<T>(read, y, x, height_before, width_before);
            }
            if (below > 0) shared[i] = value;
            if (y / own == tile_y && x / own == tile_x) store_one(out + (y * width + x) * a.channels, value);
        }
        team.wait();
        finer = shared;
        finer_rows = rows;
        finer_columns = columns;
        shared += all;
    }
}

// One number of the gradient to a level out of the gradient to the next coarser one (float), plus its own where it has
// one.
template <class T, class Out>
UNRAIN_HD void binomial_gradient(const float* coarser, const T* own, Out* to, std::ptrdiff_t height,
                                 std::ptrdiff_t width, std::ptrdiff_t channels, std::ptrdiff_t index) {
    const auto [picture, y, x, c] = place_of(index, height, width, channels);
    const std::ptrdiff_t rows = halved(height, 1), columns = halved(width, 1);
    const Readers above(y, height), beside(x, width);
    float sum = own == nullptr ? 0.0F : load_one(own + index);
    for (int j = 0; j < above.count; ++j) {
        for (int i = 0; i < beside.count; ++i) {
            const std::ptrdiff_t at = ((picture * rows + above.first + j) * columns + beside.first + i) * channels + c;
            sum += above.weight[j] * beside.weight[i] * coarser[at];
        }
    }
    store_one(to + index, sum);
}

}  // namespace unrain::UNRAIN_TIER
