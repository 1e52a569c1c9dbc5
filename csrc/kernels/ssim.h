// ssim: mean structural similarity under an 11-tap Gaussian window, forward and backward.
//
// Layout  pictures of `channels` interleaved numbers, as in gaussian_pyramid.h: NCHW has channels = 1.
// Tiling  strips of 64 rows x some 512 numbers. Rows stream through: the four windowed moments (means of x, y, x^2 + y^2, xy)
//         are blurred along the row once and kept for 11 rows; a further row blurs them along the column, in registers,
//         and turns them into the similarity. The backward pass puts a second such stage behind it, which blurs the four
//         maps of gradients: nothing but x, y and the gradient touches memory. All rings of a tile fit the second-level
//         cache (about 190 KiB).
// Values  grey is taken off all pixels first, the padding's zeros included: variances do not change, and the difference of a
//         mean of squares and a square of means keeps two more bits.
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
    Index row, step;         // numbers in a row, between neighbours
    Index top, bottom;       // rows and numbers that have a window
    Index left, right;
    Index tile, tiles, strips;
    float c1, c2, grey;
    Vec taps[kReach + 1];    // from the outermost to the middle one

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
        grey = 0.5F * a.data_range;
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

// Row y of numbers [left - halo, right + halo) less grey, the picture padded with zeros, into in[0 ...).
template <class T>
void load_row(const SsimShape& s, const T* row, Index left, Index right, float* in) {
    const Index begin = left - s.halo(), end = right + s.halo();
    const Index inside_begin = most(begin, 0), inside_end = least(end, s.row);
    for (Index k = begin; k < inside_begin; ++k) in[k - begin] = -s.grey;
    for (Index k = inside_begin; k < inside_end; k += kLanes) {
        store_lanes(in + (k - begin), load_lanes(row + k, inside_end - k) - set1(s.grey), inside_end - k);
    }
    for (Index k = inside_end; k < end; ++k) in[k - begin] = -s.grey;
}

// Blurs the moments of image row y along the row into the ring, for places [left, right).
template <class T>
void moments_row(const SsimShape& s, const Ssim& a, Index picture, Index y, Index left, Index right, float* in,
                 const Ring& ring) {
    const Index count = right - left;
    if (y < 0 || y >= a.height) {
        const float moments[kMaps] = {-s.grey, -s.grey, 2.0F * s.grey * s.grey, s.grey * s.grey};
        for (int map = 0; map < kMaps; ++map) {
            for (Index k = 0; k < count; k += kLanes) store(ring.row(y, map) + k, set1(moments[map]));
        }
        return;
    }
    const Index stride = s.buffer(count), at = (picture * a.height + y) * s.row;
    float *x = in, *yy = in + stride, *squares = in + 2 * stride, *product = in + 3 * stride;
    load_row(s, static_cast<const T*>(a.x) + at, left, right, x);
    load_row(s, static_cast<const T*>(a.y) + at, left, right, yy);
    for (Index k = 0; k < count + 2 * s.halo(); k += kLanes) {
        const Vec u = load(x + k), v = load(yy + k);
        store(squares + k, fma(u, u, v * v));
        store(product + k, u * v);
    }
    for (int map = 0; map < kMaps; ++map) blur_row(s, in + map * stride + s.halo(), ring.row(y, map), count);
}

struct Similarity {
    Vec off_x, off_y;    // means less grey
    Vec mean_x, mean_y;
    Vec top1, top2, bottom1, bottom2;
};

UNRAIN_HD Similarity similarity_at(const SsimShape& s, const Ring& ring, Index y, Index k) {
    Similarity r;
    r.off_x = blur_column(s, ring, y, 0, k);
    r.off_y = blur_column(s, ring, y, 1, k);
    r.mean_x = r.off_x + set1(s.grey);
    r.mean_y = r.off_y + set1(s.grey);
    const Vec square = blur_column(s, ring, y, 2, k), product = blur_column(s, ring, y, 3, k);
    const Vec two = set1(2.0F);
    r.top1 = fma(two * r.mean_x, r.mean_y, set1(s.c1));
    r.top2 = fma(two, fnma(r.off_x, r.off_y, product), set1(s.c2));
    r.bottom1 = fma(r.mean_x, r.mean_x, fma(r.mean_y, r.mean_y, set1(s.c1)));
    r.bottom2 = fnma(r.off_x, r.off_x, fnma(r.off_y, r.off_y, square)) + set1(s.c2);
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
        double total = 0;
        for (Index y = first - kReach; y < last + kReach; ++y) {
            moments_row<T>(s, a, picture, y, left, right, in, ring);
            const Index here = y - kReach;
            if (here < first) continue;
            Vec sum = zero();
            for (Index k = 0; k < right - left; k += kLanes) {
                const Similarity m = similarity_at(s, ring, here, k);
                sum = sum + keep_first((m.top1 * m.top2) / (m.bottom1 * m.bottom2), right - left - k);
            }
            total += static_cast<double>(unrain::UNRAIN_TIER::sum(sum));
        }
        partial.data()[task] = total;
    });
    double total = 0;
    for (Index task = 0; task < tasks; ++task) total += partial.data()[task];
    const Index places = a.pictures * (s.bottom - s.top) * (s.right - s.left);
    store_one(static_cast<T*>(a.result), static_cast<float>(total / static_cast<double>(places)));
    return nullptr;
}

// The gradients of the mean of S to the four moments (less grey) at row y, into maps [4][stride], for places [left, right); zero where
// there is no window.
inline void gradient_maps(const SsimShape& s, const Ring& ring, Index y, Index left, Index right, Vec share, float* maps,
                          Index stride) {
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
        const Similarity m = similarity_at(s, ring, y, k);
        const Vec bottom = m.bottom1 * m.bottom2;
        const Vec scale = two * share / bottom;
        const Vec similarity = m.top1 * m.top2 / bottom;
        const Vec pull = two * share * similarity, inverse1 = one / m.bottom1, inverse2 = one / m.bottom2;
        const Vec slope_x = fma(m.mean_y, m.top2, zero() - m.off_y * m.top1);
        const Vec slope_y = fma(m.mean_x, m.top2, zero() - m.off_x * m.top1);
        store(maps + k, fma(scale, slope_x, pull * fma(m.off_x, inverse2, zero() - m.mean_x * inverse1)));
        store(maps + stride + k, fma(scale, slope_y, pull * fma(m.off_y, inverse2, zero() - m.mean_y * inverse1)));
        store(maps + 2 * stride + k, zero() - share * similarity * inverse2);
        store(maps + 3 * stride + k, scale * m.top1);
    }
    for (int map = 0; map < kMaps; ++map) {
        for (Index k = 0; k < begin; ++k) maps[map * stride + k] = 0.0F;
        for (Index k = end; k < count; ++k) maps[map * stride + k] = 0.0F;
    }
}

template <class T>
void gradient_row(const SsimShape& s, const Ssim& a, Index picture, Index y, Index left, Index right, const Ring& ring) {
    const Index at = (picture * a.height + y) * s.row;
    const T *x = static_cast<const T*>(a.x) + at, *other = static_cast<const T*>(a.y) + at;
    T* grad_x = a.grad_x == nullptr ? nullptr : static_cast<T*>(a.grad_x) + at;
    T* grad_y = a.grad_y == nullptr ? nullptr : static_cast<T*>(a.grad_y) + at;
    for (Index k = left; k < right; k += kLanes) {
        const Index n = right - k;
        const Vec u = load_lanes(x + k, n) - set1(s.grey), v = load_lanes(other + k, n) - set1(s.grey);
        const Vec square = set1(2.0F) * blur_column(s, ring, y, 2, k - left);
        const Vec product = blur_column(s, ring, y, 3, k - left);
        if (grad_x != nullptr) {
            store_lanes(grad_x + k, fma(v, product, fma(u, square, blur_column(s, ring, y, 0, k - left))), n);
        }
        if (grad_y != nullptr) {
            store_lanes(grad_y + k, fma(u, product, fma(v, square, blur_column(s, ring, y, 1, k - left))), n);
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
        const Index far_left = left - s.halo(), far_right = right + s.halo();
        for (Index y = first - 2 * kReach; y < last + 2 * kReach; ++y) {
            moments_row<T>(s, a, picture, y, far_left, far_right, in, moments);
            const Index middle = y - kReach;
            if (middle < first - kReach) continue;
            gradient_maps(s, moments, middle, far_left, far_right, share, maps, wide);
            for (int map = 0; map < kMaps; ++map) {
                if ((map == 0 && a.grad_x == nullptr) || (map == 1 && a.grad_y == nullptr)) continue;
                blur_row(s, maps + map * wide + s.halo(), blurred.row(middle, map), right - left);
            }
            const Index here = middle - kReach;
            if (here >= first) gradient_row<T>(s, a, picture, here, left, right, blurred);
        }
    });
    return nullptr;
}

static const char* ssim(const Ssim& a, bool backward) {
    if (a.dtype == DType::f32) return backward ? ssim_backward<float>(a) : ssim_forward<float>(a);
    return backward ? ssim_backward<bf16>(a) : ssim_forward<bf16>(a);
}

}  // namespace unrain::UNRAIN_TIER
