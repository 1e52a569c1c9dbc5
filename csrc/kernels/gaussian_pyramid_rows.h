// What gaussian_pyramid does along one row.
#pragma once

#include "../pixel/pyramid.h"
#include "../simd/vec.h"

namespace unrain::UNRAIN_TIER {

// Sums of bytes fit 16 bits (255 * 256 + 128), and come out exactly as OpenCV's; other types are summed in float.
template <class T>
struct SumOfStruct {
    using type = float;
};
template <>
struct SumOfStruct<std::uint8_t> {
    using type = std::uint16_t;
};
template <class T>
using SumOf = typename SumOfStruct<T>::type;

template <class T>
void sum_five_rows(const T* const (&rows)[5], float* sums, Index row) {
    for (Index k = 0; k < row; k += kLanes) {
        const Index n = row - k;
        const Vec sum = binomial(load_lanes(rows[0] + k, n), load_lanes(rows[1] + k, n), load_lanes(rows[2] + k, n),
                                 load_lanes(rows[3] + k, n), load_lanes(rows[4] + k, n));
        store_lanes(sums + k, sum, n);
    }
}

inline void sum_five_rows(const std::uint8_t* const (&rows)[5], std::uint16_t* sums, Index row) {
    const std::uint8_t *a = rows[0], *b = rows[1], *c = rows[2], *d = rows[3], *e = rows[4];
    for (Index k = 0; k < row; ++k) {
        sums[k] = static_cast<std::uint16_t>(a[k] + e[k] + 4 * (b[k] + d[k]) + 6 * c[k]);
    }
}

// A row of sums taken apart into its even and its odd pixels, each with one reflected pixel more at either end: the five
// taps of output j are even[j-1], odd[j-1], even[j], odd[j], even[j+1], whole vectors of neighbours at a time.
template <class S>
struct HalfRow {
    Index width, channels, pixels;  // pixels: of the reduced row
    S *even = nullptr, *odd = nullptr;

    HalfRow(Index w, Index c) : width(w), channels(c), pixels(ceil_div(w, 2)) {}

    Index side() const { return ceil_div((pixels + 2) * channels, 64) * 64; }
    Index size() const { return 2 * side(); }
    HalfRow at(S* memory) const {
        HalfRow placed = *this;
        placed.even = memory + channels;
        placed.odd = memory + side() + channels;
        return placed;
    }

    void split(const S* sums) const {
        split_whole(sums);
        for (Index c = 0; c < channels; ++c) {
            even[c - channels] = sums[reflect(-2, width) * channels + c];
            odd[c - channels] = sums[reflect(-1, width) * channels + c];
            even[pixels * channels + c] = sums[reflect(2 * pixels, width) * channels + c];
            odd[(pixels - 1) * channels + c] = sums[reflect(2 * pixels - 1, width) * channels + c];
        }
    }

private:
    void split_whole(const float* sums) const {
        Index j = 0;
        if (channels == 1) {
            for (; 2 * (j + kLanes) <= width; j += kLanes) {
                Vec e, o;
                deinterleave(load(sums + 2 * j), load(sums + 2 * j + kLanes), e, o);
                store(even + j, e);
                store(odd + j, o);
            }
        }
        split_rest(sums, j);
    }
    void split_whole(const std::uint16_t* sums) const {
        if (channels == 1) {
            for (Index j = 0; j < width / 2; ++j) {
                even[j] = sums[2 * j];
                odd[j] = sums[2 * j + 1];
            }
            return split_rest(sums, width / 2);
        }
        split_rest(sums, 0);
    }
    void split_rest(const S* sums, Index j) const {
        if (channels == 3) return split_known<3>(sums, j);
        for (; j < pixels; ++j) {
            const S* pair = sums + 2 * j * channels;
            for (Index c = 0; c < channels; ++c) even[j * channels + c] = pair[c];
            if (2 * j + 1 < width) {
                for (Index c = 0; c < channels; ++c) odd[j * channels + c] = pair[channels + c];
            }
        }
    }
    template <int kChannels>
    void split_known(const S* sums, Index j) const {
        for (; 2 * j + 1 < width; ++j) {
            for (Index c = 0; c < kChannels; ++c) {
                even[j * kChannels + c] = sums[2 * j * kChannels + c];
                odd[j * kChannels + c] = sums[(2 * j + 1) * kChannels + c];
            }
        }
        for (Index c = 0; j < pixels && c < kChannels; ++c) even[j * kChannels + c] = sums[2 * j * kChannels + c];
    }
};

template <class T>
void binomial_row(const HalfRow<float>& half, T* out, Index row) {
    const float *even = half.even, *odd = half.odd;
    const Index c = half.channels;
    const Vec weight = set1(1.0F / 256.0F);
    for (Index k = 0; k < row; k += kLanes) {
        const Index n = row - k;
        const Vec sum = binomial(load_lanes(even + k - c, n), load_lanes(odd + k - c, n), load_lanes(even + k, n),
                                 load_lanes(odd + k, n), load_lanes(even + k + c, n));
        store_lanes(out + k, sum * weight, n);
    }
}

inline void binomial_row(const HalfRow<std::uint16_t>& half, std::uint8_t* out, Index row) {
    const std::uint16_t *even = half.even, *odd = half.odd;
    const Index c = half.channels;
    for (Index k = 0; k < row; ++k) {
        const unsigned sum = even[k - c] + even[k + c] + 4U * (odd[k - c] + odd[k]) + 6U * even[k];
        out[k] = static_cast<std::uint8_t>(static_cast<std::uint16_t>(sum + 128U) >> 8);
    }
}

// The transpose of "every second pixel of 1 4 6 4 1" along a row of `width` pixels.
inline void spread_row(const float* from, float* to, Index width, Index channels) {
    constexpr Index kBorder = 4;
    const auto at_border = [&](Index pixel) {
        const Readers readers(pixel, width);
        for (Index c = 0; c < channels; ++c) {
            float sum = 0.0F;
            for (int r = 0; r < readers.count; ++r) sum += readers.weight[r] * from[(readers.first + r) * channels + c];
            to[pixel * channels + c] = sum;
        }
    };
    const Index inner = most(kBorder, (width - kBorder) / 2 * 2);  // even, so that pairs end here
    for (Index pixel = 0; pixel < least(kBorder, width); ++pixel) at_border(pixel);
    Index pixel = kBorder;
    if (channels == 1) {
        for (; pixel + 2 * kLanes <= inner; pixel += 2 * kLanes) {
            const float* p = from + pixel / 2;
            const Vec before = load(p - 1), here = load(p), after = load(p + 1);
            Vec lo, hi;
            interleave((before + after) * set1(1.0F / 16.0F) + here * set1(6.0F / 16.0F),
                       (here + after) * set1(4.0F / 16.0F), lo, hi);
            store(to + pixel, lo);
            store(to + pixel + kLanes, hi);
        }
    }
    for (; pixel < inner; pixel += 2) {
        const float* p = from + pixel / 2 * channels;
        float* pair = to + pixel * channels;
        for (Index c = 0; c < channels; ++c) {
            pair[c] = (p[c - channels] + p[c + channels]) * (1.0F / 16.0F) + p[c] * (6.0F / 16.0F);
            pair[channels + c] = (p[c] + p[c + channels]) * (4.0F / 16.0F);
        }
    }
    for (pixel = inner; pixel < width; ++pixel) at_border(pixel);
}

// Sums of `factor` neighbours out of a row of column sums, over how many pixels each covers. `sums` is worked on in place.
template <class T>
void box_row(float* sums, Index width, Index channels, Index factor, float height, T* out) {
    const bool byte = sizeof(T) == 1;
    const Index whole = width / factor;  // pixels whose window lies inside
    Index done = 0;
    if (channels == 1 && (factor == 2 || factor == 4)) {
        const Vec weight = set1(height * static_cast<float>(factor));
        for (; done + kLanes <= whole; done += kLanes) {
            const float* p = sums + done * factor;
            Vec even, odd, sum;
            deinterleave(load(p), load(p + kLanes), even, odd);
            sum = even + odd;
            if (factor == 4) {
                deinterleave(load(p + 2 * kLanes), load(p + 3 * kLanes), even, odd);
                const Vec rest = even + odd;
                deinterleave(sum, rest, even, odd);
                sum = even + odd;
            }
            store(out + done, level_value(sum, weight, byte));
        }
    }
    for (Index j = done; j < ceil_div(width, factor); ++j) {
        const Index across = least(factor, width - j * factor);
        const float weight = height * static_cast<float>(across);
        for (Index c = 0; c < channels; ++c) {
            float sum = sums[j * factor * channels + c];
            for (Index k = 1; k < across; ++k) sum += sums[(j * factor + k) * channels + c];
            store_one(out + j * channels + c, level_value(sum, weight, byte));
        }
    }
}

template <class T>
void box_row_backward(const T* grad, Index width, Index channels, Index factor, float height, float* sums) {
    for (Index j = 0; j < ceil_div(width, factor); ++j) {
        const Index across = least(factor, width - j * factor);
        const float share = 1.0F / (height * static_cast<float>(across));
        for (Index c = 0; c < channels; ++c) {
            const float value = load_one(grad + j * channels + c) * share;
            for (Index k = 0; k < across; ++k) sums[(j * factor + k) * channels + c] += value;
        }
    }
}

}  // namespace unrain::UNRAIN_TIER
