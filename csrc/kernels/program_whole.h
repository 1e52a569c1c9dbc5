// Operations of a program in which a number needs all pixels of its channel or all channels of its pixel: global means,
// layers on a few numbers, norms, and reading a memory.
//
// Layout  channels-last. Tiling: stretches of 2048 pixels, each summed up by itself and then joined in their order, so
//         that no bit depends on threads. Traffic: an instance norm reads its map twice and writes it once. Bound:
//         memory, but for memory_read (see memory_read.h).
#pragma once

#include "memory_read.h"
#include "program_maps.h"

namespace unrain::UNRAIN_TIER {

using program::kReducedPixels;

// body(picture, first pixel, count, row of the workspace) for stretches of pixels.
template <class Body>
void for_each_stretch_of_pixels(const Operation& o, const Place& x, const Body& body) {
    const Index stretches = ceil_div(x.pixels(), kReducedPixels);
    const auto bytes = static_cast<std::size_t>(o.batch * x.numbers() * 4);
    for_each_task(o.batch * stretches, bytes, o.threads, [&](Index task, int) {
        const Index first = task % stretches * kReducedPixels;
        body(task / stretches, first, least(kReducedPixels, x.pixels() - first), task);
    });
}

// The sums over the pixels of a stretch, of `stored` channels; of the squared distances to `mean` where there is one.
static void sum_pixels(const Place& x, Index first, Index count, const float* mean, float* sums) {
    for (Index k = 0; k < x.stored; k += kLanes) {
        const Index n = x.stored - k;
        const Vec middle = mean != nullptr ? load_lanes(mean + k, n) : zero();
        Vec even = zero(), odd = zero();
        for (Index pixel = first; pixel < first + count; pixel += 2) {
            Vec a = load_number(x, pixel * x.stored + k, n) - middle;
            Vec b = pixel + 1 < first + count ? load_number(x, (pixel + 1) * x.stored + k, n) - middle : zero();
            even = mean != nullptr ? fma(a, a, even) : even + a;
            odd = mean != nullptr ? fma(b, b, odd) : odd + b;
        }
        store_lanes(sums + k, even + odd, n);
    }
}

static void mean(const Operation& o) {
    const Place& x = o.x[0];
    float* partial = static_cast<float*>(o.workspace);
    for_each_stretch_of_pixels(o, x, [&](Index picture, Index first, Index count, Index row) {
        sum_pixels(x, picture * x.pixels() + first, count, nullptr, partial + row * x.stored);
    });
    const Index stretches = ceil_div(x.pixels(), kReducedPixels);
    for (Index picture = 0; picture < o.batch; ++picture) {
        for (Index k = 0; k < o.y.stored; ++k) {
            double sum = 0;
            for (Index s = 0; k < x.stored && s < stretches; ++s) {
                sum += static_cast<double>(partial[(picture * stretches + s) * x.stored + k]);
            }
            const float result = static_cast<float>(sum / static_cast<double>(x.pixels()));
            static_cast<float*>(o.y.data)[picture * o.y.stored + k] = k < o.y.channels ? result : 0.0F;
        }
    }
}

// Weights are [inputs, outputs stored], so that a vector holds outputs.
static void dense(const Operation& o) {
    const float *weight = o.constants[0], *bias = o.constants[1], *slope = o.constants[2];
    const FlushDenormals flush;
    for (Index picture = 0; picture < o.batch; ++picture) {
        const float* v = static_cast<const float*>(o.x[0].data) + picture * o.x[0].stored;
        float* y = static_cast<float*>(o.y.data) + picture * o.y.stored;
        for (Index k = 0; k < o.y.stored; k += kLanes) {
            Vec sum = bias != nullptr ? load(bias + k) : zero();
            for (Index c = 0; c < o.x[0].channels; ++c) sum = fma(set1(v[c]), load(weight + c * o.y.stored + k), sum);
            store(y + k, activated(o.act, sum, slope != nullptr ? load(slope + k) : zero()));
        }
    }
}

// A stretch's mean and squared distances from it, joined with those of the stretches before it (Chan's formula).
struct Moments {
    double count = 0, mean = 0, squares = 0;
    void join(double other_count, double other_mean, double other_squares) {
        const double all = count + other_count, apart = other_mean - mean;
        squares += other_squares + apart * apart * count * other_count / all;
        mean += apart * other_count / all;
        count = all;
    }
};

// Workspace: for each stretch means and squares; behind them factors and offsets of each picture.
static void instance_norm(const Operation& o) {
    const Place &x = o.x[0], &y = o.y;
    const Index stretches = ceil_div(x.pixels(), kReducedPixels), row_size = most(x.stored, kPeriod);
    float* partial = static_cast<float*>(o.workspace);
    float* factors = partial + 2 * o.batch * stretches * row_size;
    for_each_stretch_of_pixels(o, x, [&](Index picture, Index first, Index count, Index row) {
        float *means = partial + 2 * row * row_size, *squares = means + row_size;
        sum_pixels(x, picture * x.pixels() + first, count, nullptr, means);
        for (Index k = 0; k < x.stored; ++k) means[k] /= static_cast<float>(count);
        sum_pixels(x, picture * x.pixels() + first, count, means, squares);
    });
    const double eps = static_cast<double>(from_bits(static_cast<std::uint32_t>(o.attribute[0])));
    for (Index picture = 0; picture < o.batch; ++picture) {
        float *factor = factors + 2 * picture * row_size, *offset = factor + row_size;
        for (Index k = 0; k < row_size; ++k) {
            const Index channel = x.thin() ? k % 4 : k;  // a thin map's constants repeat
            Moments all;
            for (Index s = 0; s < stretches; ++s) {
                const float* means = partial + 2 * (picture * stretches + s) * row_size;
                const Index count = least(kReducedPixels, x.pixels() - s * kReducedPixels);
                all.join(static_cast<double>(count), static_cast<double>(means[channel]),
                         static_cast<double>(means[row_size + channel]));
            }
            const bool counts = channel < x.channels;
            const double own = counts && o.constants[0] != nullptr ? static_cast<double>(o.constants[0][k]) : 1.0;
            const double by = counts ? own / std::sqrt(all.squares / all.count + eps) : 0.0;
            const double to = o.constants[1] != nullptr ? static_cast<double>(o.constants[1][k]) : 0.0;
            factor[k] = static_cast<float>(by);
            offset[k] = static_cast<float>(counts ? to - all.mean * by : 0.0);
        }
    }
    const auto row_of = [&](Index picture) { return factors + 2 * picture * row_size; };
    for_each_vector(o, 2, row_of, [&](const float* row, Index at, Index k, Index n) {
        const Vec scaled = fma(load_number(x, at, n), load(row + k), load(row + row_size + k));
        store_number(y, at, scaled, n);
    });
}

// Over the channels of each pixel: a LayerNorm, or a division by the length.
static void channel_norm(const Operation& o) {
    const Place &x = o.x[0], &y = o.y;
    const float eps = from_bits(static_cast<std::uint32_t>(o.attribute[0]));
    const bool by_length = o.attribute[1] == 1;
    const float count = static_cast<float>(x.channels);
    for_each_row(o, [&](Index picture, Index row) {
        for (Index column = 0; column < y.width; ++column) {
            const Index at = ((picture * y.height + row) * y.width + column) * y.stored;
            Vec sum = zero();
            for (Index k = 0; k < x.channels && !by_length; k += kLanes) {
                sum = sum + keep_first(load_number(x, at + k, x.stored - k), x.channels - k);
            }
            const Vec middle = set1(unrain::UNRAIN_TIER::sum(sum) / count);
            Vec squares = zero();
            for (Index k = 0; k < x.channels; k += kLanes) {
                const Vec apart = keep_first(load_number(x, at + k, x.stored - k) - middle, x.channels - k);
                squares = fma(apart, apart, squares);
            }
            const float total = unrain::UNRAIN_TIER::sum(squares);
            const float length = std::sqrt(total);
            const float by = by_length ? 1.0F / (length < eps ? eps : length) : 1.0F / std::sqrt(total / count + eps);
            for (Index k = 0; k < y.stored; k += kLanes) {
                const Index n = y.stored - k;
                Vec result = (load_number(x, at + k, n) - middle) * set1(by);
                if (o.constants[0] != nullptr) result = result * load(o.constants[0] + k);
                if (o.constants[1] != nullptr) result = result + load(o.constants[1] + k);
                store_number(y, at + k, result, n);
            }
        }
    });
}

// Constants: the items, filled up to the stored channels, as they are and at length one.
template <class T>
void memory_read_of(const Operation& o) {
    const Place& x = o.x[0];
    const Items<T> items{o.attribute[0], x.stored, o.constants[0], o.constants[1]};
    read_memory<T>(items, static_cast<const T*>(x.data), o.batch * x.pixels(), static_cast<T*>(o.y.data), nullptr,
                   static_cast<float*>(o.workspace), o.threads);
}

static void operation(const Operation& o) {
    switch (o.op) {
        case Op::pool:
            return pool(o);
        case Op::shuffle:
            return shuffle(o);
        case Op::unshuffle:
            return unshuffle(o);
        case Op::add:
            return join_two(o, [](Vec a, Vec b) { return a + b; });
        case Op::sub:
            return join_two(o, [](Vec a, Vec b) { return a - b; });
        case Op::mul:
            return join_two(o, [](Vec a, Vec b) { return a * b; });
        case Op::affine:
            return affine(o);
        case Op::clamp:
            return clamp(o);
        case Op::lerp:
            return lerp(o);
        case Op::lstm:
            return lstm(o);
        case Op::mean:
            return mean(o);
        case Op::dense:
            return dense(o);
        case Op::instance_norm:
            return instance_norm(o);
        case Op::channel_norm:
            return channel_norm(o);
        case Op::memory_read:
            return o.x[0].dtype == DType::f32 ? memory_read_of<float>(o) : memory_read_of<bf16>(o);
        case Op::copy:
            return copy(o);
        case Op::fill:
            return fill(o);
        case Op::slice:
            return slice(o);
        case Op::conv:
        case Op::conv_lstm:
            return;  // run by csrc/conv.h
    }
}

}  // namespace unrain::UNRAIN_TIER
