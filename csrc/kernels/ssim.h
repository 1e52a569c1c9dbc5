// ssim: mean structural similarity under an 11-tap Gaussian window, forward and backward.
//
// Layout  pictures of `channels` interleaved numbers, as in gaussian_pyramid.h: NCHW has channels = 1.
// Tiling  strips of 64 rows x some 512 numbers. Rows stream through: four windowed means (of x, of d = x - y, of x^2 +
// y^2 and
//         of d^2: all five moments of x and y follow from them) are blurred along the row once and kept for 11 rows; a
//         further row blurs them along the column, in registers, and turns them into the similarity. The backward pass
//         puts a second such stage behind it, which blurs the four maps of gradients: nothing but x, y and the gradient
//         touches memory. All rings of a tile fit the second-level cache (about 190 KiB).
// Values  S = (1 - (mx - my)^2 / b1) (1 - v / b2) with v the variance of d, b1 = mx^2 + my^2 + C1, b2 = sxx + syy + C2:
// like
//         pictures differ from 1 by small terms that are known to all their digits, and 1 - S is what is summed up.
//         Before squares are taken, a tile's grey is taken off its pixels, the padding's zeros included: variances do
//         not change, and the difference of a mean of squares and a square of means keeps some two bits more.
// Traffic forward reads 2N; backward reads 2N and writes N per gradient; halos add 16 to 35%.
// Bound   arithmetic and cache loads: 88 taps per number forward, 176 backward.
#pragma once

#include "../ops.h"
#include "../parallel.h"
#include "../scratch.h"
#include "../simd/vec.h"

namespace unrain::UNRAIN_TIER {

constexpr int kTaps = 11;
constexpr int kReach = kTaps / 2;
constexpr int kMaps = 4;
constexpr Index kStrip = 64;

// Eleven rows of four maps each, addressed by the row of the image they belong to.
struct Ring {
    float* memory;
    Index stride;

    static Index size(Index stride) { return kTaps * kMaps * stride; }
    float* row(Index y, int map) const { return memory + (((y % kTaps + kTaps) % kTaps) * kMaps + map) * stride; }
};

struct SsimShape {
    Index row, step;    // numbers in a row, between neighbours
    Index top, bottom;  // rows and numbers that have a window
    Index left, right;
    Index tile, tiles, strips;
    float c1, c2;
    float weight;          // of the whole window: one, but for rounding
    Vec taps[kReach + 1];  // from the outermost to the middle one

    explicit SsimShape(const Ssim& a) {
        row = a.width * a.channels;
        step = a.channels;
        const Index inset = a.valid != 0 ? kReach : 0;
        top = inset;
        bottom = a.height - inset;
        left = inset * step;
        right = row - inset * step;
        tile = most(512, 48 * step);
        tiles = ceil_div(right - left, tile);
        strips = ceil_div(bottom - top, kStrip);
        c1 = 1e-4F * a.data_range * a.data_range;
        c2 = 9e-4F * a.data_range * a.data_range;
        double whole = static_cast<double>(a.taps[kReach]);
        for (int k = 0; k < kReach; ++k) whole += 2.0 * static_cast<double>(a.taps[k]);
        weight = static_cast<float>(whole * whole);
        for (int k = 0; k <= kReach; ++k) taps[k] = set1(a.taps[k]);
    }
    Index halo() const { return kReach * step; }
    // A row buffer for `numbers` results, with its halo in front and behind, and room to load whole vectors.
    Index buffer(Index numbers) const { return ceil_div(numbers + 2 * halo() + kLanes, 64) * 64; }
};

// out[k] = the window over in[k - 5 step] ... in[k + 5 step].
inline void blur_row(const SsimShape& s, const float* in, float* out, Index count) {
    for (Index k = 0; k < count; k += kLanes) {
        Vec sum = s.taps[kReach] * load(in + k);
        for (int t = 0; t < kReach; ++t) {
            const Index away = (kReach - t) * s.step;
            sum = fma(s.taps[t], load(in + k - away) + load(in + k + away), sum);
        }
        store(out + k, sum);
    }
}

// The window along a column, whose middle row is y.
UNRAIN_HD Vec blur_column(const SsimShape& s, const Ring& ring, Index y, int map, Index k) {
    Vec sum = s.taps[kReach] * load(ring.row(y, map) + k);
    for (int t = 0; t < kReach; ++t) {
        const Index away = kReach - t;
        sum = fma(s.taps[t], load(ring.row(y - away, map) + k) + load(ring.row(y + away, map) + k), sum);
    }
    return sum;
}

// Row y of numbers [left - halo, right + halo) as floats, zero outside the picture, into in[0 ...).
template <class T>
void load_row(const SsimShape& s, const T* row, Index left, Index right, float* in) {
    const Index begin = left - s.halo(), end = right + s.halo();
    const Index inside_begin = most(begin, 0), inside_end = least(end, s.row);
    for (Index k = begin; k < inside_begin; ++k) in[k - begin] = 0.0F;
    for (Index k = inside_begin; k < inside_end; k += kLanes) {
        store_lanes(in + (k - begin), load_lanes(row + k, inside_end - k), inside_end - k);
    }
    for (Index k = inside_end; k < end; ++k) in[k - begin] = 0.0F;
}

// The middle brightness of x and y along one row of a tile. None for a picture smaller than the window, whose
// surroundings are mostly padding, and none where there is something that is not a number: it must not spread.
template <class T>
float grey_of(const SsimShape& s, const Ssim& a, Index picture, Index y, Index left, Index right) {
    if (a.height < kTaps || a.width < kTaps) return 0.0F;
    const Index at = (picture * a.height + y) * s.row;
    const T *x = static_cast<const T*>(a.x) + at, *other = static_cast<const T*>(a.y) + at;
    Vec total = zero();
    for (Index k = left; k < right; k += kLanes) {
        const Index n = right - k;
        total = total + keep_first(load_lanes(x + k, n) + load_lanes(other + k, n), n);
    }
    const float grey = sum(total) / (2.0F * static_cast<float>(right - left));
    return grey - grey < 1.0F ? grey : 0.0F;
}

// Blurs the moments of image row y along the row into the ring, for places [left, right).
template <class T>
void moments_row(const SsimShape& s, const Ssim& a, Index picture, Index y, Index left, Index right, float grey,
                 float* in, const Ring& ring) {
    const Index count = right - left;
    if (y < 0 || y >= a.height) {
        const float moments[kMaps] = {0.0F, 0.0F, 2.0F * grey * grey * s.weight, 0.0F};
        for (int map = 0; map < kMaps; ++map) {
            for (Index k = 0; k < count; k += kLanes) store(ring.row(y, map) + k, set1(moments[map]));
        }
        return;
    }
    const Index stride = s.buffer(count), at = (picture * a.height + y) * s.row;
    float *x = in, *yy = in + stride, *squares = in + 2 * stride, *apart = in + 3 * stride;
    load_row(s, static_cast<const T*>(a.x) + at, left, right, x);
    load_row(s, static_cast<const T*>(a.y) + at, left, right, yy);
    for (Index k = 0; k < count + 2 * s.halo(); k += kLanes) {
        const Vec u = load(x + k) - set1(grey), v = load(yy + k) - set1(grey);
        const Vec d = load(x + k) - load(yy + k);
        store(squares + k, fma(u, u, v * v));
        store(apart + k, d * d);
        store(yy + k, d);
    }
    for (int map = 0; map < kMaps; ++map) blur_row(s, in + map * stride + s.halo(), ring.row(y, map), count);
}

struct Similarity {
    Vec mean_x, mean_y, mean_d;
    Vec off_x, off_y;                // means less grey
    Vec bottom1, bottom2, variance;  // b1, b2, v
    Vec missing1, missing2;          // what either factor of S falls short of one
    Vec missing;                     // 1 - S
};

UNRAIN_HD Similarity similarity_at(const SsimShape& s, const Ring& ring, Index y, Index k, float grey) {
    const Vec one = set1(1.0F), middle = set1(grey * s.weight);
    Similarity r;
    r.mean_x = blur_column(s, ring, y, 0, k);
    r.mean_d = blur_column(s, ring, y, 1, k);
    r.mean_y = r.mean_x - r.mean_d;
    r.off_x = r.mean_x - middle;
    r.off_y = r.mean_y - middle;
    r.bottom1 = fma(r.mean_x, r.mean_x, fma(r.mean_y, r.mean_y, set1(s.c1)));
    r.bottom2 = fnma(r.off_x, r.off_x, fnma(r.off_y, r.off_y, blur_column(s, ring, y, 2, k))) + set1(s.c2);
    r.variance = fnma(r.mean_d, r.mean_d, blur_column(s, ring, y, 3, k));
    r.missing1 = r.mean_d * r.mean_d / r.bottom1;
    r.missing2 = r.variance / r.bottom2;
    r.missing = fma(r.missing1, one - r.missing2, r.missing2);
    return r;
}

template <class T>
const char* ssim_forward(const Ssim& a) {
    const SsimShape s(a);
    const Index tasks = a.pictures * s.strips * s.tiles;
    const Index stride = s.buffer(s.tile);
    const Index slot_size = kMaps * stride + Ring::size(stride);
    const Scratch<float> scratch(static_cast<std::size_t>(slot_size * a.threads));
    const Scratch<double> partial(static_cast<std::size_t>(tasks));
    if (scratch.failed() || partial.failed()) return kNoMemory;
    const std::size_t work = static_cast<std::size_t>(a.pictures * a.height * s.row) * 8 * sizeof(T);
    for_each_task(tasks, work, a.threads, [&](Index task, int slot) {
        float* in = scratch.data() + slot * slot_size;
        const Ring ring{in + kMaps * stride, stride};
        const Index picture = task / (s.strips * s.tiles);
        const Index first = s.top + task / s.tiles % s.strips * kStrip, last = least(s.bottom, first + kStrip);
        const Index left = s.left + task % s.tiles * s.tile, right = least(s.right, left + s.tile);
        const float grey = grey_of<T>(s, a, picture, (first + last) / 2, left, right);
        double total = 0;
        for (Index y = first - kReach; y < last + kReach; ++y) {
            moments_row<T>(s, a, picture, y, left, right, grey, in, ring);
            const Index here = y - kReach;
            if (here < first) continue;
            Vec sum = zero();
            for (Index k = 0; k < right - left; k += kLanes) {
                const Similarity m = similarity_at(s, ring, here, k, grey);
                sum = sum + keep_first(m.missing, right - left - k);
            }
            total += static_cast<double>(unrain::UNRAIN_TIER::sum(sum));
        }
        partial.data()[task] = total;
    });
    double total = 0;
    for (Index task = 0; task < tasks; ++task) total += partial.data()[task];
    const Index places = a.pictures * (s.bottom - s.top) * (s.right - s.left);
    store_one(static_cast<T*>(a.result), static_cast<float>(1.0 - total / static_cast<double>(places)));
    return nullptr;
}

// The gradients of the mean of S at row y, to the means of x and of y (which d is made of) and to those of x^2 + y^2
// and d^2, into maps [4][stride] for places [left, right); zero where there is no window.
inline void gradient_maps(const SsimShape& s, const Ring& ring, Index y, Index left, Index right, float grey, Vec share,
                          float* maps, Index stride) {
    const Index count = right - left;
    const Index begin = most(s.left, left) - left, end = least(s.right, right) - left;
    if (y < s.top || y >= s.bottom || begin >= end) {
        for (int map = 0; map < kMaps; ++map) {
            std::memset(maps + map * stride, 0, static_cast<std::size_t>(count) * sizeof(float));
        }
        return;
    }
    const Vec one = set1(1.0F), two = set1(2.0F);
    for (Index k = 0; k < count; k += kLanes) {
        const Similarity m = similarity_at(s, ring, y, k, grey);
        const Vec factor1 = one - m.missing1, factor2 = one - m.missing2;
        const Vec inverse1 = one / m.bottom1, inverse2 = one / m.bottom2;
        const Vec means = m.mean_x + m.mean_y, c1 = set1(s.c1);
        const Vec first = factor2 * inverse1 * inverse1 * m.mean_d, second = factor1 * inverse2;
        const Vec pull_x = fnma(first, fma(m.mean_y, means, c1), second * fnma(m.off_x, m.missing2, m.mean_d));
        const Vec pull_y = fma(first, fma(m.mean_x, means, c1), second * fnma(m.off_y, m.missing2, zero() - m.mean_d));
        store(maps + k, two * share * pull_x);
        store(maps + stride + k, two * share * pull_y);
        store(maps + 2 * stride + k, share * second * m.missing2);
        store(maps + 3 * stride + k, zero() - share * second);
    }
    for (int map = 0; map < kMaps; ++map) {
        for (Index k = 0; k < begin; ++k) maps[map * stride + k] = 0.0F;
        for (Index k = end; k < count; ++k) maps[map * stride + k] = 0.0F;
    }
}

template <class T>
void gradient_row(const SsimShape& s, const Ssim& a, Index picture, Index y, Index left, Index right, float grey,
                  const Ring& ring) {
    const Index at = (picture * a.height + y) * s.row;
    const T *x = static_cast<const T*>(a.x) + at, *other = static_cast<const T*>(a.y) + at;
    T* grad_x = a.grad_x == nullptr ? nullptr : static_cast<T*>(a.grad_x) + at;
    T* grad_y = a.grad_y == nullptr ? nullptr : static_cast<T*>(a.grad_y) + at;
    for (Index k = left; k < right; k += kLanes) {
        const Index n = right - k;
        const Vec u = load_lanes(x + k, n), v = load_lanes(other + k, n), two = set1(2.0F);
        const Vec square = two * blur_column(s, ring, y, 2, k - left);
        const Vec apart = two * blur_column(s, ring, y, 3, k - left) * (u - v);
        if (grad_x != nullptr) {
            const Vec direct = blur_column(s, ring, y, 0, k - left) + apart;
            store_lanes(grad_x + k, fma(u - set1(grey), square, direct), n);
        }
        if (grad_y != nullptr) {
            const Vec direct = blur_column(s, ring, y, 1, k - left) - apart;
            store_lanes(grad_y + k, fma(v - set1(grey), square, direct), n);
        }
    }
}

template <class T>
const char* ssim_backward(const Ssim& a) {
    const SsimShape s(a);
    // Every pixel has a gradient, also where no window is centred: the tiles cover the whole picture.
    const Index strips = ceil_div(a.height, kStrip), tiles = ceil_div(s.row, s.tile);
    const Index wide = s.buffer(s.tile + 2 * s.halo()), narrow = s.buffer(s.tile);
    const Index slot_size = kMaps * wide + Ring::size(wide) + kMaps * wide + Ring::size(narrow);
    const Scratch<float> scratch(static_cast<std::size_t>(slot_size * a.threads));
    if (scratch.failed()) return kNoMemory;
    const double places = static_cast<double>(a.pictures * (s.bottom - s.top) * (s.right - s.left));
    const double grad = static_cast<double>(load_one(static_cast<const T*>(a.grad)));
    const Vec share = set1(static_cast<float>(grad / places));
    const std::size_t work = static_cast<std::size_t>(a.pictures * a.height * s.row) * 16 * sizeof(T);
    for_each_task(a.pictures * strips * tiles, work, a.threads, [&](Index task, int slot) {
        float* in = scratch.data() + slot * slot_size;
        const Ring moments{in + kMaps * wide, wide};
        float* maps = moments.memory + Ring::size(wide);
        const Ring blurred{maps + kMaps * wide, narrow};
        const Index picture = task / (strips * tiles);
        const Index first = task / tiles % strips * kStrip, last = least(a.height, first + kStrip);
        const Index left = task % tiles * s.tile, right = least(s.row, left + s.tile);
        const float grey = grey_of<T>(s, a, picture, (first + last) / 2, left, right);
        const Index far_left = left - s.halo(), far_right = right + s.halo();
        for (Index y = first - 2 * kReach; y < last + 2 * kReach; ++y) {
            moments_row<T>(s, a, picture, y, far_left, far_right, grey, in, moments);
            const Index middle = y - kReach;
            if (middle < first - kReach) continue;
            gradient_maps(s, moments, middle, far_left, far_right, grey, share, maps, wide);
            for (int map = 0; map < kMaps; ++map) {
                if ((map == 0 && a.grad_x == nullptr) || (map == 1 && a.grad_y == nullptr)) continue;
                blur_row(s, maps + map * wide + s.halo(), blurred.row(middle, map), right - left);
            }
            const Index here = middle - kReach;
            if (here >= first) gradient_row<T>(s, a, picture, here, left, right, grey, blurred);
        }
    });
    return nullptr;
}

static const char* ssim(const Ssim& a, bool backward) {
    if (a.dtype == DType::f32) return backward ? ssim_backward<float>(a) : ssim_forward<float>(a);
    return backward ? ssim_backward<bf16>(a) : ssim_forward<bf16>(a);
}

}  // namespace unrain::UNRAIN_TIER
