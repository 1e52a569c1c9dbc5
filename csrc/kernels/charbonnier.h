// charbonnier: sqrt((pred - target)^2 + eps^2), its sum or mean, and its gradient from the inputs alone.
//
// Layout  two flat arrays in the same order.
// Tiling  16384 numbers per task. A reduction adds in float over one vector's lanes within 1024 numbers, in double
// above
//         that, tasks in their order: the same bits for any number of threads.
// Traffic forward reads 2N; backward reads 2N and writes N per gradient.
// Bound   memory.
#pragma once

#include <cfloat>

#include "../ops.h"
#include "../parallel.h"
#include "../scratch.h"
#include "../simd/math.h"

namespace unrain::UNRAIN_TIER {

constexpr Index kLossTile = 16384;
constexpr Index kLossRun = 1024;

// At least the smallest normal number: a square that is flushed to zero would make the gradient 0 / 0 where both agree.
inline float eps_squared(const Charbonnier& a) { return a.eps * a.eps > FLT_MIN ? a.eps * a.eps : FLT_MIN; }

template <class T>
void charbonnier_each(const Charbonnier& a) {
    const T* pred = static_cast<const T*>(a.pred);
    const T* target = static_cast<const T*>(a.target);
    T* loss = static_cast<T*>(a.loss);
    const Vec eps2 = set1(eps_squared(a));
    const std::size_t bytes = static_cast<std::size_t>(a.count) * 3 * sizeof(T);
    for_each_task(ceil_div(a.count, kLossTile), bytes, a.threads, [&](Index task, int) {
        const Index end = least(a.count, (task + 1) * kLossTile);
        for (Index k = task * kLossTile; k < end; k += kLanes) {
            const Vec d = load_lanes(pred + k, end - k) - load_lanes(target + k, end - k);
            store_lanes(loss + k, sqrt(fma(d, d, eps2)), end - k);
        }
    });
}

template <class T>
const char* charbonnier_total(const Charbonnier& a) {
    const T* pred = static_cast<const T*>(a.pred);
    const T* target = static_cast<const T*>(a.target);
    const Vec eps2 = set1(eps_squared(a));
    const Index tasks = ceil_div(a.count, kLossTile);
    const Scratch<double> partial(static_cast<std::size_t>(tasks));
    if (partial.failed()) return kNoMemory;
    const std::size_t bytes = static_cast<std::size_t>(a.count) * 2 * sizeof(T);
    for_each_task(tasks, bytes, a.threads, [&](Index task, int) {
        double total = 0;
        const Index end = least(a.count, (task + 1) * kLossTile);
        Index k = task * kLossTile;
        while (k < end) {
            const Index stop = least(end, k + kLossRun);
            Vec acc[4] = {zero(), zero(), zero(), zero()};
            for (; k + 4 * kLanes <= stop; k += 4 * kLanes) {
                for (int u = 0; u < 4; ++u) {
                    const Vec d = load(pred + k + u * kLanes) - load(target + k + u * kLanes);
                    acc[u] = acc[u] + sqrt(fma(d, d, eps2));
                }
            }
            for (; k < stop; k += kLanes) {
                const Vec d = load_lanes(pred + k, stop - k) - load_lanes(target + k, stop - k);
                acc[0] = acc[0] + keep_first(sqrt(fma(d, d, eps2)), stop - k);
            }
            k = stop;
            total += static_cast<double>(sum((acc[0] + acc[1]) + (acc[2] + acc[3])));
        }
        partial.data()[task] = total;
    });
    double total = 0;
    for (Index task = 0; task < tasks; ++task) total += partial.data()[task];
    if (a.reduction == Reduction::mean) total /= static_cast<double>(a.count);
    store_one(static_cast<T*>(a.loss), static_cast<float>(total));
    return nullptr;
}

template <class T>
void charbonnier_gradient(const Charbonnier& a) {
    const T* pred = static_cast<const T*>(a.pred);
    const T* target = static_cast<const T*>(a.target);
    const T* grad = static_cast<const T*>(a.grad_loss);
    T* grad_pred = static_cast<T*>(a.grad_pred);
    T* grad_target = static_cast<T*>(a.grad_target);
    const bool each = a.reduction == Reduction::none;
    const bool streaming = grad_pred != nullptr && worth_streaming(grad_pred, a.count);
    const Vec eps2 = set1(eps_squared(a));
    Vec scale = zero();
    if (!each && a.count > 0) {
        const double share = a.reduction == Reduction::mean ? static_cast<double>(a.count) : 1.0;
        scale = set1(static_cast<float>(static_cast<double>(load_one(grad)) / share));
    }
    const std::size_t bytes = static_cast<std::size_t>(a.count) * 3 * sizeof(T);
    for_each_task(ceil_div(a.count, kLossTile), bytes, a.threads, [&](Index task, int) {
        const Index end = least(a.count, (task + 1) * kLossTile);
        for (Index k = task * kLossTile; k < end; k += kLanes) {
            const Index n = end - k;
            const Vec d = load_lanes(pred + k, n) - load_lanes(target + k, n);
            const Vec slope = (each ? load_lanes(grad + k, n) : scale) * d / sqrt(fma(d, d, eps2));
            if (grad_pred != nullptr) {
                if (streaming && n >= kLanes) {
                    stream(grad_pred + k, slope);
                } else {
                    store_lanes(grad_pred + k, slope, n);
                }
            }
            if (grad_target != nullptr) store_lanes(grad_target + k, zero() - slope, n);
        }
        if (streaming) end_streaming();
    });
}

template <class T>
const char* charbonnier_typed(const Charbonnier& a, bool backward) {
    if (backward) {
        charbonnier_gradient<T>(a);
    } else if (a.reduction == Reduction::none) {
        charbonnier_each<T>(a);
    } else {
        return charbonnier_total<T>(a);
    }
    return nullptr;
}

static const char* charbonnier(const Charbonnier& a, bool backward) {
    return a.dtype == DType::f32 ? charbonnier_typed<float>(a, backward) : charbonnier_typed<bf16>(a, backward);
}

}  // namespace unrain::UNRAIN_TIER
