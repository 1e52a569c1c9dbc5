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
UNRAIN_HD Vec sum_of_five(const T* const (&rows)[5], Index k) {
    return binomial(load(rows[0] + k), load(rows[1] + k), load(rows[2] + k), load(rows[3] + k), load(rows[4] + k));
}

template <class T>
void sum_five_rows(const T* const (&rows)[5], float* sums, Index begin, Index end) {
    for (Index k = begin; k < end; k += kLanes) {
        const Index n = end - k;
        const Vec sum = binomial(load_lanes(rows[0] + k, n), load_lanes(rows[1] + k, n), load_lanes(rows[2] + k, n),
                                 load_lanes(rows[3] + k, n), load_lanes(rows[4] + k, n));
        store_lanes(sums + k, sum, n);
    }
}

inline void sum_five_rows(const std::uint8_t* const (&rows)[5], std::uint16_t* sums, Index begin, Index end) {
    const std::uint8_t *a = rows[0], *b = rows[1], *c = rows[2], *d = rows[3], *e = rows[4];
    for (Index k = begin; k < end; ++k) {
        sums[k] = static_cast<std::uint16_t>(a[k] + e[k] + 4 * (b[k] + d[k]) + 6 * c[k]);
    }
}

// A row of sums taken apart into its even and its odd pixels, each with one reflected pixel more at either end: the
// five taps of output j are even[j-1], odd[j-1], even[j], odd[j], even[j+1], whole vectors of neighbours at a time.
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

    // The column sums of five rows; `sums` is room for one row of them.
    template <class T>
    void fill(const T* const (&rows)[5], S* sums) const {
        sum_and_split(rows, sums);
        for (Index c = 0; c < channels; ++c) {
            even[c - channels] = pixel(-2, c);
            odd[c - channels] = pixel(-1, c);
            const S after_even = pixel(2 * pixels, c), after_odd = pixel(2 * pixels - 1, c);
            even[pixels * channels + c] = after_even;
            odd[(pixels - 1) * channels + c] = after_odd;
        }
    }

private:
    S pixel(Index i, Index c) const {
        const Index inside = reflect(i, width);
        return (inside % 2 == 0 ? even : odd)[inside / 2 * channels + c];
    }

    template <class T>
    void sum_and_split(const T* const (&rows)[5], S* sums) const {
        Index done = 0;
        if constexpr (sizeof(S) == sizeof(float)) {
            // One channel: both steps in registers.
            for (; channels == 1 && 2 * (done + kLanes) <= width; done += kLanes) {
                const Vec first = sum_of_five(rows, 2 * done), second = sum_of_five(rows, 2 * done + kLanes);
                Vec e, o;
                deinterleave(first, second, e, o);
                store(even + done, e);
                store(odd + done, o);
            }
        }
        sum_five_rows(rows, sums, 2 * done * channels, width * channels);
        split_rest(sums, done);
    }

    void split_rest(const S* sums, Index j) const {
        if (channels == 1) return split_known<1>(sums, j);
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
        // Three numbers move as four, the fourth being overwritten by the next pixel; the last pixels go one by one.
        constexpr std::size_t kAtOnce = (kChannels == 3 ? 4 : kChannels) * sizeof(S);
        for (; 2 * j + 3 < width; ++j) {
            std::memcpy(even + j * kChannels, sums + 2 * j * kChannels, kAtOnce);
            std::memcpy(odd + j * kChannels, sums + (2 * j + 1) * kChannels, kAtOnce);
        }
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

// Sums of `factor` neighbours out of a row of column sums, over how many pixels each covers. `sums` is worked on in
// place.
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
