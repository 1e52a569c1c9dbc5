// gru_gates: the pointwise half of a ConvGRU step, forward and backward.
//
// Layout  rows of `inner` contiguous numbers, an image's C*H*W (NCHW) or a pixel's C (NHWC); those of one input lie
//         `pitch` numbers apart, as it may be half of a convolution's output. What is written is dense.
// Tiling  rows x 4096 numbers per task; nothing is shared between tasks.
// Traffic forward reads 3C and writes C; backward reads 4C and writes 3C; a reset after the convolution adds 2C read,
//         and 2C written in the backward pass. Everything is computed again there rather than stored.
// Bound   memory for float32, arithmetic (two or three exponentials and divisions) for data in cache.
#pragma once

#include <cfloat>

#include "lstm_gates.h"

namespace unrain::UNRAIN_TIER {

struct GruStep {
    Vec u, u_slope;  // how much of the candidate is taken
    Vec r, r_slope, hidden;
    Vec q, q_slope;
    Vec state;
};

// One row of every input; null where there is none.
template <class P, class S>
struct GruRow {
    const P *z, *candidate, *r, *hidden;
    const S* h;
    bool z_keeps;
    Act activation;

    GruRow(const GruGates& a, Index row)
        : z(at<P>(a.z, row * a.z_pitch)),
          candidate(at<P>(a.candidate, row * a.candidate_pitch)),
          r(at<P>(a.r, row * a.r_pitch)),
          hidden(at<P>(a.hidden, row * a.hidden_pitch)),
          h(at<S>(a.h, row * a.h_pitch)),
          z_keeps(a.z_keeps != 0),
          activation(a.activation) {}

    template <class T>
    static const T* at(const void* map, Index offset) {
        return map == nullptr ? nullptr : static_cast<const T*>(map) + offset;
    }
};

template <class P, class S>
UNRAIN_HD GruStep gru_step(const GruRow<P, S>& row, Index k, Index n) {
    GruStep s;
    const Vec z = load_lanes(row.z + k, n);
    s.u = sigmoid(row.z_keeps ? zero() - z : z, s.u_slope);
    s.state = row.h == nullptr ? zero() : load_lanes(row.h + k, n);
    Vec q = load_lanes(row.candidate + k, n);
    s.r = s.r_slope = s.hidden = zero();
    if (row.r != nullptr) {
        s.r = sigmoid(load_lanes(row.r + k, n), s.r_slope);
        s.hidden = load_lanes(row.hidden + k, n);
        q = fma(s.r, s.hidden, q);
    }
    if (row.activation == Act::tanh) {
        s.q = tanh(q, s.q_slope);
    } else if (row.activation == Act::relu) {
        s.q = max(zero(), q);  // the second where one is NaN
        s.q_slope = select(less(q, set1(FLT_MIN)), zero(), set1(1.0F));
    } else {
        s.q = q, s.q_slope = set1(1.0F);
    }
    return s;
}

template <class P, class S>
void gru_gates_forward(const GruGates& a) {
    for_each_stretch(a, 4 * sizeof(P) + 2 * sizeof(S), [&](Index row, Index begin, Index end) {
        const GruRow<P, S> from(a, row);
        S* h_next = static_cast<S*>(a.h_next) + row * a.inner;
        for (Index k = begin; k < end; k += kLanes) {
            const Index n = end - k;
            const GruStep s = gru_step(from, k, n);
            store_lanes(h_next + k, fma(s.u, s.q, (set1(1.0F) - s.u) * s.state), n);
        }
    });
}

template <class P, class S>
void gru_gates_backward(const GruGates& a) {
    const Vec sign = set1(a.z_keeps != 0 ? -1.0F : 1.0F);
    for_each_stretch(a, 8 * sizeof(P) + 3 * sizeof(S), [&](Index row, Index begin, Index end) {
        const S* grad = static_cast<const S*>(a.grad) + row * a.inner;
        const GruRow<P, S> from(a, row);
        const auto put = [&](void* map, Index k, Vec value, Index n) {
            store_lanes(static_cast<P*>(map) + row * a.inner + k, value, n);
        };
        for (Index k = begin; k < end; k += kLanes) {
            const Index n = end - k;
            const GruStep s = gru_step(from, k, n);
            const Vec d = load_lanes(grad + k, n);
            const Vec d_q = d * s.u * s.q_slope;
            put(a.grad_z, k, sign * d * (s.q - s.state) * s.u_slope, n);
            put(a.grad_candidate, k, d_q, n);
            if (a.h != nullptr) {
                store_lanes(static_cast<S*>(a.grad_h) + row * a.inner + k, d * (set1(1.0F) - s.u), n);
            }
            if (a.r != nullptr) {
                put(a.grad_r, k, d_q * s.hidden * s.r_slope, n);
                put(a.grad_hidden, k, d_q * s.r, n);
            }
        }
    });
}

static const char* gru_gates(const GruGates& a, bool backward) {
    if (a.dtype == DType::f32) {
        backward ? gru_gates_backward<float, float>(a) : gru_gates_forward<float, float>(a);
    } else if (a.state_dtype == DType::f32) {
        backward ? gru_gates_backward<bf16, float>(a) : gru_gates_forward<bf16, float>(a);
    } else {
        backward ? gru_gates_backward<bf16, bf16>(a) : gru_gates_forward<bf16, bf16>(a);
    }
    return nullptr;
}

}  // namespace unrain::UNRAIN_TIER
