// memory_read: cosine scores of N queries against M items, softmax over the items, weighted sum of the items.
//
// Layout  row-major matrices. Tiling: 2 vectors of queries per block, 512 or more queries per task.
// Traffic forward reads N C and writes N C; the N x M scores and weights live in the first-level cache, a block at a
// time.
//         The backward pass computes them again, reads 2 N C and writes N C.
// Bound   arithmetic: 2 N M C multiply-adds forward, 5 backward.
#pragma once

#include "memory_block.h"

namespace unrain::UNRAIN_TIER {

// Cosines to softmax weights, in place. The scores are at most one in size: no maximum needs to be taken off.
inline void softmax_over_items(float* scores, Index items, const float* inverse) {
    for (Index lane = 0; lane < kQueries; lane += kLanes) {
        const Vec over = load(inverse + lane);
        Vec sum = zero();
        for (Index m = 0; m < items; ++m) {
            const Vec e = exp(load(scores + m * kQueries + lane) * over);
            store(scores + m * kQueries + lane, e);
            sum = sum + e;
        }
        const Vec share = set1(1.0F) / sum;
        for (Index m = 0; m < items; ++m) {
            float* w = scores + m * kQueries + lane;
            store(w, load(w) * share);
        }
    }
}

// Numbers of scratch memory for each thread.
inline Index memory_read_scratch(Index columns, Index items) { return (2 * columns + items + 2) * kQueries; }

template <class T>
void read_memory(const Items<T>& items, const T* query, Index queries, T* result, T* weights, float* scratch,
                 int threads) {
    const Index c = items.columns, m = items.count, slot_size = memory_read_scratch(c, m);
    const Index per_task = queries_per_task(queries);
    const std::size_t work = static_cast<std::size_t>(queries * c * (m + 8)) * sizeof(float) / 4;
    for_each_task(ceil_div(queries, per_task), work, threads, [&](Index task, int slot) {
        float* turned = scratch + slot * slot_size;
        float *scores = turned + c * kQueries, *read = scores + m * kQueries;
        float *inverse = read + c * kQueries, *direction = inverse + kQueries;
        const Index last = least(queries, (task + 1) * per_task);
        for (Index q = task * per_task; q < last; q += kQueries) {
            const Index count = least(kQueries, last - q);
            turn_in(query + q * c, count, c, turned);
            inverse_lengths(turned, c, inverse, direction);
            product(items.unit, c, 1, m, c, turned, scores);
            softmax_over_items(scores, m, inverse);
            product(items.raw, 1, c, c, m, scores, read);
            turn_out(read, count, c, result + q * c);
            if (weights != nullptr) turn_out(scores, count, m, weights + q * m);
        }
    });
}

template <class T>
const char* memory_read_forward(const MemoryRead& a) {
    const Index c = a.columns, m = a.items_count;
    const Scratch<float> prepared(static_cast<std::size_t>(Items<T>::size(m, c)));
    const Scratch<float> scratch(static_cast<std::size_t>(memory_read_scratch(c, m) * a.threads));
    if (prepared.failed() || scratch.failed()) return kNoMemory;
    const Items<T> items(static_cast<const T*>(a.items), m, c, prepared.data());
    read_memory(items, static_cast<const T*>(a.query), a.queries, static_cast<T*>(a.read), static_cast<T*>(a.weights),
                scratch.data(), a.threads);
    return nullptr;
}

// scores [M][Q] hold the weights, grads [M][Q] the gradients to them: grads become the gradients to the scores.
inline void softmax_backward(const float* weights, Index items, float* grads) {
    for (Index lane = 0; lane < kQueries; lane += kLanes) {
        Vec mean = zero();
        for (Index m = 0; m < items; ++m) {
            mean = fma(load(weights + m * kQueries + lane), load(grads + m * kQueries + lane), mean);
        }
        for (Index m = 0; m < items; ++m) {
            float* g = grads + m * kQueries + lane;
            store(g, load(weights + m * kQueries + lane) * (load(g) - mean));
        }
    }
}

// factors[m][q] *= by[q]
inline void scale_lanes(float* factors, Index items, const float* by) {
    for (Index m = 0; m < items; ++m) {
        for (Index lane = 0; lane < kQueries; lane += kLanes) {
            float* f = factors + m * kQueries + lane;
            store(f, load(f) * load(by + lane));
        }
    }
}

template <class T>
const char* memory_read_backward(const MemoryRead& a) {
    const Index c = a.columns, m = a.items_count;
    const Index slot_size = (3 * c + 3 * m + 2) * kQueries;
    const Index per_task = queries_per_task(a.queries), tasks = ceil_div(a.queries, per_task);
    const Scratch<float> prepared(static_cast<std::size_t>(Items<T>::size(m, c)));
    const Scratch<float> scratch(static_cast<std::size_t>(slot_size * a.threads));
    const Scratch<float> partial(static_cast<std::size_t>(2 * m * c * (tasks + 1)));
    if (prepared.failed() || scratch.failed() || partial.failed()) return kNoMemory;
    const Items<T> items(static_cast<const T*>(a.items), m, c, prepared.data());
    const std::size_t work = static_cast<std::size_t>(a.queries * c * (m + 8)) * sizeof(float);
    for_each_task(tasks, work, a.threads, [&](Index task, int slot) {
        float* turned = scratch.data() + slot * slot_size;
        float *grad_read = turned + c * kQueries, *grad = grad_read + c * kQueries;
        float *weights = grad + c * kQueries, *grad_scores = weights + m * kQueries,
              *extra = grad_scores + m * kQueries;
        float *inverse = extra + m * kQueries, *direction = inverse + kQueries;
        float *to_raw = partial.data() + 2 * m * c * task, *to_unit = to_raw + m * c;
        std::memset(to_raw, 0, static_cast<std::size_t>(2 * m * c) * sizeof(float));
        const Index last = least(a.queries, (task + 1) * per_task);
        for (Index q = task * per_task; q < last; q += kQueries) {
            const Index count = least(kQueries, last - q);
            const T* rows = static_cast<const T*>(a.query) + q * c;
            const T* grad_rows = static_cast<const T*>(a.grad_read) + q * c;
            turn_in(rows, count, c, turned);
            inverse_lengths(turned, c, inverse, direction);
            product(items.unit, c, 1, m, c, turned, weights);
            softmax_over_items(weights, m, inverse);
            turn_in(grad_rows, count, c, grad_read);
            product(items.raw, c, 1, m, c, grad_read, grad_scores);
            if (a.grad_weights != nullptr) {
                turn_in(static_cast<const T*>(a.grad_weights) + q * m, count, m, extra);
                for (Index k = 0; k < m * kQueries; k += kLanes) {
                    store(grad_scores + k, load(grad_scores + k) + load(extra + k));
                }
            }
            softmax_backward(weights, m, grad_scores);
            product(items.unit, 1, c, c, m, grad_scores, grad);
            turn_unit_backward(turned, inverse, direction, c, grad);
            turn_out(grad, count, c, static_cast<T*>(a.grad_query) + q * c);
            add_outer(weights, m, grad_rows, count, c, to_raw);
            scale_lanes(grad_scores, m, inverse);
            add_outer(grad_scores, m, rows, count, c, to_unit);
        }
    });
    const FlushDenormals flush;
    float* total = partial.data() + 2 * m * c * tasks;
    add_partial_sums(partial.data(), tasks, 2 * m * c, 2 * m * c, total);
    for (Index i = 0; i < m; ++i) {
        float* result = total + i * c;
        unit_backward(total + (m + i) * c, items.raw + i * c, result, c, result);
        for (Index k = 0; k < c; ++k) store_one(static_cast<T*>(a.grad_items) + i * c + k, result[k]);
    }
    return nullptr;
}

static const char* memory_read(const MemoryRead& a, bool backward) {
    if (a.dtype == DType::f32) return backward ? memory_read_backward<float>(a) : memory_read_forward<float>(a);
    return backward ? memory_read_backward<bf16>(a) : memory_read_forward<bf16>(a);
}

}  // namespace unrain::UNRAIN_TIER
