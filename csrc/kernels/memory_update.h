// memory_update: item + sum over N of weight * query, at length one; the weights are a softmax over the queries.
//
// Layout and tiling as memory_read. The softmax runs over all N queries, yet one pass is enough: cosines are at most
// one in
//         size, so exp(score) needs no maximum taken off, and sums of exp and of exp * query go along side by side. The
//         hard rule divides by the exponential of the highest score, which is known at the end and is one factor per
//         item.
// Traffic forward reads N C; backward reads it twice (the sums of the forward pass, then the gradients) and writes N C.
// Bound   arithmetic: 2 N M C multiply-adds forward, 7 backward.
#pragma once

#include "memory_block.h"
#include "memory_read.h"

namespace unrain::UNRAIN_TIER {

// What one task, or all of them, found out about the items.
struct UpdateSums {
    float* weighted;  // [M][C] sums of exp(score) * query
    float* total;     // [M] sums of exp(score)
    float* highest;   // [M] hard rule: the highest score,
    Index* nearest;   // [M] and whose it is
    static Index numbers(Index m, Index c) { return m * c + 2 * m; }
    UpdateSums(float* memory, Index* owners, Index m, Index c)
        : weighted(memory), total(memory + m * c), highest(total + m), nearest(owners) {}
};

// Scores to exponentials, in place; under the hard rule zero but for each query's nearest item.
inline void update_weights(const MemoryUpdate& a, float* scores) {
    const Index m = a.items_count;
    for (Index lane = 0; lane < kQueries; lane += kLanes) {
        Vec best = set1(-3.0F), which = zero();
        for (Index i = 0; i < m; ++i) {
            float* at = scores + i * kQueries + lane;
            const Vec score = load(at);
            const Mask better = less(best, score);
            best = select(better, score, best);
            which = select(better, set1(static_cast<float>(i)), which);
            store(at, exp(score));
        }
        for (Index i = 0; a.hard != 0 && i < m; ++i) {
            float* at = scores + i * kQueries + lane;
            const Vec weight = load(at);
            const Mask mine = less(abs(which - set1(static_cast<float>(i))), set1(0.5F));
            store(at, select(mine, weight, weight - weight));  // 0, or NaN where it was NaN
        }
    }
}

template <class T>
struct UpdateBlock {
    Index count;
    const T* rows;
    float *turned, *scores, *inverse, *direction;

    static Index size(Index m, Index c) { return (c + m + 2) * kQueries; }
    UpdateBlock(const MemoryUpdate& a, const Items<T>& items, Index q, Index last, float* memory) {
        const Index c = a.columns, m = a.items_count;
        count = least(kQueries, last - q);
        rows = static_cast<const T*>(a.query) + q * c;
        turned = memory;
        scores = turned + c * kQueries;
        inverse = scores + m * kQueries;
        direction = inverse + kQueries;
        turn_in(rows, count, c, turned);
        inverse_lengths(turned, c, inverse, direction);
        product(items.unit, c, 1, m, c, turned, scores);
        scale_lanes(scores, m, inverse);
    }
};

// The sums over all queries, into `whole`.
template <class T>
const char* update_sums(const MemoryUpdate& a, const Items<T>& items, const UpdateSums& whole) {
    const Index c = a.columns, m = a.items_count, numbers = UpdateSums::numbers(m, c);
    const Index per_task = queries_per_task(a.queries), tasks = ceil_div(a.queries, per_task);
    const Index slot_size = UpdateBlock<T>::size(m, c);
    const Scratch<float> scratch(static_cast<std::size_t>(slot_size * a.threads));
    const Scratch<float> partial(static_cast<std::size_t>(numbers * tasks));
    const Scratch<Index> owners(static_cast<std::size_t>(m * tasks));
    if (scratch.failed() || partial.failed() || owners.failed()) return kNoMemory;
    const std::size_t work = static_cast<std::size_t>(a.queries * c * (m + 8)) * sizeof(float) / 4;
    for_each_task(tasks, work, a.threads, [&](Index task, int slot) {
        const UpdateSums mine(partial.data() + task * numbers, owners.data() + task * m, m, c);
        std::memset(mine.weighted, 0, static_cast<std::size_t>(m * c + m) * sizeof(float));
        for (Index i = 0; i < m; ++i) {
            mine.highest[i] = -3.0F;
            mine.nearest[i] = -1;
        }
        const Index last = least(a.queries, (task + 1) * per_task);
        for (Index q = task * per_task; q < last; q += kQueries) {
            const UpdateBlock<T> block(a, items, q, last, scratch.data() + slot * slot_size);
            for (Index i = 0; a.hard != 0 && i < m; ++i) {
                for (Index k = 0; k < block.count; ++k) {
                    const float score = block.scores[i * kQueries + k];
                    if (score > mine.highest[i]) {
                        mine.highest[i] = score;
                        mine.nearest[i] = q + k;
                    }
                }
            }
            update_weights(a, block.scores);
            add_outer(block.scores, m, block.rows, block.count, c, mine.weighted);
            for (Index i = 0; i < m; ++i) {
                Vec sum = zero();
                for (Index lane = 0; lane < block.count; lane += kLanes) {
                    sum = sum + keep_first(load(block.scores + i * kQueries + lane), block.count - lane);
                }
                mine.total[i] += unrain::UNRAIN_TIER::sum(sum);
            }
        }
    });
    add_partial_sums(partial.data(), tasks, m * c + m, numbers, whole.weighted);
    for (Index i = 0; i < m; ++i) {
        whole.highest[i] = -3.0F;
        whole.nearest[i] = -1;
        for (Index task = 0; task < tasks; ++task) {
            const float score = partial.data()[task * numbers + m * c + m + i];
            if (score > whole.highest[i]) {
                whole.highest[i] = score;
                whole.nearest[i] = owners.data()[task * m + i];
            }
        }
    }
    return nullptr;
}

// Sums of exp * query to sums of weight * query; factor[i] is what an exponential becomes a weight by.
inline void weigh_sums(const MemoryUpdate& a, const UpdateSums& whole, float* factor) {
    for (Index i = 0; i < a.items_count; ++i) {
        factor[i] = 0.0F;
        if (a.queries > 0) factor[i] = a.hard != 0 ? std::exp(-whole.highest[i]) : 1.0F / whole.total[i];
        for (Index k = 0; k < a.columns; ++k) whole.weighted[i * a.columns + k] *= factor[i];
    }
}

template <class T>
const char* memory_update_forward(const MemoryUpdate& a) {
    const Index c = a.columns, m = a.items_count;
    const Scratch<float> memory(static_cast<std::size_t>(Items<T>::size(m, c) + UpdateSums::numbers(m, c) + m));
    const Scratch<Index> owners(static_cast<std::size_t>(m));
    if (memory.failed() || owners.failed()) return kNoMemory;
    const Items<T> items(static_cast<const T*>(a.items), m, c, memory.data());
    float* rest = memory.data() + Items<T>::size(m, c);
    const UpdateSums whole(rest, owners.data(), m, c);
    if (const char* wrong = update_sums(a, items, whole)) return wrong;
    weigh_sums(a, whole, rest + UpdateSums::numbers(m, c));
    for (Index i = 0; i < m; ++i) {
        float* row = whole.weighted + i * c;
        for (Index k = 0; k < c; ++k) row[k] += items.raw[i * c + k];
        const double length = row_length(row, c);
        for (Index k = 0; k < c; ++k) {
            const double unit = static_cast<double>(row[k]) / length;
            store_one(static_cast<T*>(a.result) + i * c + k, static_cast<float>(unit));
        }
    }
    return nullptr;
}

template <class T>
const char* memory_update_backward(const MemoryUpdate& a) {
    const Index c = a.columns, m = a.items_count, pair = m * c;
    const Index per_task = queries_per_task(a.queries), tasks = ceil_div(a.queries, per_task);
    const Index slot_size = UpdateBlock<T>::size(m, c) + (2 * c + m) * kQueries;
    const Index fixed = Items<T>::size(m, c) + UpdateSums::numbers(m, c) + 2 * m + 3 * pair;
    const Scratch<float> memory(static_cast<std::size_t>(fixed + pair * tasks));
    const Scratch<float> scratch(static_cast<std::size_t>(slot_size * a.threads));
    const Scratch<Index> owners(static_cast<std::size_t>(m));
    if (memory.failed() || scratch.failed() || owners.failed()) return kNoMemory;
    const Items<T> items(static_cast<const T*>(a.items), m, c, memory.data());
    float* rest = memory.data() + Items<T>::size(m, c);
    const UpdateSums whole(rest, owners.data(), m, c);
    float *factor = rest + UpdateSums::numbers(m, c), *inner = factor + m;
    float *given = inner + m, *grad_sum = given + pair, *to_unit = grad_sum + pair, *partial = to_unit + pair;
    if (const char* wrong = update_sums(a, items, whole)) return wrong;
    weigh_sums(a, whole, factor);

    // Through the normalisation: gradients to item + weighted sum; `inner` is what the softmax takes off again.
    std::memset(to_unit, 0, static_cast<std::size_t>(pair) * sizeof(float));
    for (Index k = 0; k < pair; ++k) given[k] = load_one(static_cast<const T*>(a.grad) + k);
    for (Index i = 0; i < m; ++i) {
        float* row = whole.weighted + i * c;
        float* moved = grad_sum + i * c;
        for (Index k = 0; k < c; ++k) moved[k] = items.raw[i * c + k] + row[k];
        unit_backward(given + i * c, moved, to_unit, c, moved);
        inner[i] = 0.0F;
        for (Index k = 0; k < c; ++k) inner[i] += moved[k] * row[k];
    }

    const std::size_t work = static_cast<std::size_t>(a.queries * c * (m + 8)) * sizeof(float);
    for_each_task(tasks, work, a.threads, [&](Index task, int slot) {
        float* at = scratch.data() + slot * slot_size;
        float *grad_weights = at + UpdateBlock<T>::size(m, c), *grad = grad_weights + m * kQueries;
        float *direct = grad + c * kQueries, *mine = partial + task * pair;
        std::memset(mine, 0, static_cast<std::size_t>(pair) * sizeof(float));
        const Index last = least(a.queries, (task + 1) * per_task);
        for (Index q = task * per_task; q < last; q += kQueries) {
            const UpdateBlock<T> block(a, items, q, last, at);
            update_weights(a, block.scores);
            product(grad_sum, c, 1, m, c, block.turned, grad_weights);
            for (Index i = 0; i < m; ++i) {
                const Vec scale = set1(factor[i]), taken = set1(a.hard != 0 ? 0.0F : inner[i]);
                for (Index k = i * kQueries; k < (i + 1) * kQueries; k += kLanes) {
                    const Vec weight = load(block.scores + k) * scale;
                    store(block.scores + k, weight);
                    store(grad_weights + k, weight * (load(grad_weights + k) - taken));
                }
                const Index nearest = whole.nearest[i] - q;
                if (a.hard != 0 && nearest >= 0 && nearest < block.count) {
                    grad_weights[i * kQueries + nearest] -= inner[i];
                }
            }
            product(items.unit, 1, c, c, m, grad_weights, grad);
            turn_unit_backward(block.turned, block.inverse, block.direction, c, grad);
            product(grad_sum, 1, c, c, m, block.scores, direct);
            for (Index k = 0; k < c * kQueries; k += kLanes) store(grad + k, load(grad + k) + load(direct + k));
            turn_out(grad, block.count, c, static_cast<T*>(a.grad_query) + q * c);
            scale_lanes(grad_weights, m, block.inverse);
            add_outer(grad_weights, m, block.rows, block.count, c, mine);
        }
    });
    const FlushDenormals flush;
    add_partial_sums(partial, tasks, pair, pair, to_unit);
    for (Index i = 0; i < m; ++i) {
        unit_backward(to_unit + i * c, items.raw + i * c, grad_sum + i * c, c, given + i * c);
        for (Index k = 0; k < c; ++k) store_one(static_cast<T*>(a.grad_items) + i * c + k, given[i * c + k]);
    }
    return nullptr;
}

static const char* memory_update(const MemoryUpdate& a, bool backward) {
    if (a.dtype == DType::f32) return backward ? memory_update_backward<float>(a) : memory_update_forward<float>(a);
    return backward ? memory_update_backward<bf16>(a) : memory_update_forward<bf16>(a);
}

}  // namespace unrain::UNRAIN_TIER
