// lstm_gates: the pointwise half of a ConvLSTM step, forward and backward.
//
// Layout  rows of `inner` contiguous numbers per gate, the gates of one row side by side. NCHW is one row of C*H*W
// numbers
//         per image, NHWC one row of C per pixel: one loop serves both.
// Tiling  rows x 4096 numbers per task; nothing is shared between tasks.
// Traffic forward reads 4C + C and writes 2C; backward reads 4C + 3C and writes 4C + C. Gates are computed again in the
//         backward pass rather than stored.
// Bound   memory for float32, arithmetic (three exponentials, two expm1, three divisions) for data in cache.
#pragma once

#include "../ops.h"
#include "../parallel.h"
#include "../simd/math.h"

namespace unrain::UNRAIN_TIER {

constexpr Index kGateTile = 4096;

template <class P>
struct GatePointers {
    P *i, *f, *g, *o;  // f is null at a first step, which has nothing to forget
};

template <class P, class T>
GatePointers<P> gates_of_row(T* pre, Index row, Index inner, bool first_step) {
    P* base = static_cast<P*>(pre) + row * inner * (first_step ? 3 : 4);
    if (first_step) return {base, nullptr, base + inner, base + 2 * inner};
    return {base, base + inner, base + 2 * inner, base + 3 * inner};
}

// Tasks over rows and stretches of a row; body(row, begin, end).
template <class Args, class Body>
void for_each_stretch(const Args& a, std::size_t bytes_each, const Body& body) {
    const Index rows = a.rows, inner = a.inner;
    if (rows == 0 || inner == 0) return;
    const Index stretches = ceil_div(inner, kGateTile);
    const Index rows_each = most(1, kGateTile / inner);
    const std::size_t bytes = static_cast<std::size_t>(rows) * static_cast<std::size_t>(inner) * bytes_each;
    for_each_task(ceil_div(rows, rows_each) * stretches, bytes, a.threads, [&](Index task, int) {
        const Index begin = task % stretches * kGateTile;
        const Index end = least(inner, begin + kGateTile);
        const Index last = least(rows, (task / stretches + 1) * rows_each);
        for (Index row = task / stretches * rows_each; row < last; ++row) body(row, begin, end);
    });
}

template <class P>
UNRAIN_HD Vec peephole_at(const LstmGates& a, int which, Index row, Index k, Index n) {
    const P* base = static_cast<const P*>(a.peephole) + which * a.peephole_rows * a.inner;
    return load_lanes(base + row % a.peephole_rows * a.inner + k, n);
}

template <class P, class S, bool kFirst, bool kPeephole>
void lstm_gates_forward_rows(const LstmGates& a) {
    for_each_stretch(a, 4 * sizeof(P) + 3 * sizeof(S), [&](Index row, Index begin, Index end) {
        const auto pre = gates_of_row<const P>(a.pre, row, a.inner, kFirst);
        const S* c = static_cast<const S*>(a.c) + row * a.inner;
        S* c_next = static_cast<S*>(a.c_next) + row * a.inner;
        P* h = static_cast<P*>(a.h) + row * a.inner;
        for (Index k = begin; k < end; k += kLanes) {
            const Index n = end - k;
            Vec in = load_lanes(pre.i + k, n);
            Vec cell;
            if constexpr (kFirst) {
                cell = sigmoid_times_tanh(in, load_lanes(pre.g + k, n));
            } else {
                const Vec state = load_lanes(c + k, n);
                Vec forget = load_lanes(pre.f + k, n);
                if constexpr (kPeephole) {
                    in = fma(peephole_at<P>(a, 0, row, k, n), state, in);
                    forget = fma(peephole_at<P>(a, 1, row, k, n), state, forget);
                }
                cell = fma(sigmoid(forget), state, sigmoid_times_tanh(in, load_lanes(pre.g + k, n)));
            }
            Vec out = load_lanes(pre.o + k, n);
            if constexpr (kPeephole) out = fma(peephole_at<P>(a, 2, row, k, n), cell, out);
            store_lanes(c_next + k, cell, n);
            store_lanes(h + k, sigmoid_times_tanh(out, cell), n);
        }
    });
}

template <class P, class S, bool kFirst, bool kPeephole>
void lstm_gates_backward_rows(const LstmGates& a) {
    for_each_stretch(a, 9 * sizeof(P) + 3 * sizeof(S), [&](Index row, Index begin, Index end) {
        const auto pre = gates_of_row<const P>(a.pre, row, a.inner, kFirst);
        const auto grad = gates_of_row<P>(a.grad_pre, row, a.inner, kFirst);
        const S* c = static_cast<const S*>(a.c) + row * a.inner;
        const P* grad_h = static_cast<const P*>(a.grad_h) + row * a.inner;
        const S* grad_cell = static_cast<const S*>(a.grad_c_next) + row * a.inner;
        S* grad_c = static_cast<S*>(a.grad_c) + row * a.inner;
        for (Index k = begin; k < end; k += kLanes) {
            const Index n = end - k;
            Vec state = zero(), f = zero(), slope_f, i = load_lanes(pre.i + k, n), o = load_lanes(pre.o + k, n);
            if constexpr (!kFirst) {
                state = load_lanes(c + k, n);
                f = load_lanes(pre.f + k, n);
                if constexpr (kPeephole) {
                    i = fma(peephole_at<P>(a, 0, row, k, n), state, i);
                    f = fma(peephole_at<P>(a, 1, row, k, n), state, f);
                }
                f = sigmoid(f, slope_f);
            }
            Vec slope_i, slope_g, slope_o, slope_t;
            i = sigmoid(i, slope_i);
            const Vec g = tanh(load_lanes(pre.g + k, n), slope_g);
            Vec cell = i * g;
            if constexpr (!kFirst) cell = fma(f, state, cell);
            if constexpr (kPeephole) o = fma(peephole_at<P>(a, 2, row, k, n), cell, o);
            o = sigmoid(o, slope_o);
            const Vec t = tanh(cell, slope_t);

            const Vec dh = load_lanes(grad_h + k, n);
            const Vec d_o = dh * t * slope_o;
            Vec d_cell = fma(dh * o, slope_t, load_lanes(grad_cell + k, n));
            if constexpr (kPeephole) d_cell = fma(d_o, peephole_at<P>(a, 2, row, k, n), d_cell);
            const Vec d_i = d_cell * g * slope_i;
            store_lanes(grad.i + k, d_i, n);
            store_lanes(grad.g + k, d_cell * i * slope_g, n);
            store_lanes(grad.o + k, d_o, n);
            if constexpr (!kFirst) {
                const Vec d_f = d_cell * state * slope_f;
                store_lanes(grad.f + k, d_f, n);
                Vec d_state = d_cell * f;
                if constexpr (kPeephole) {
                    d_state = fma(d_i, peephole_at<P>(a, 0, row, k, n), d_state);
                    d_state = fma(d_f, peephole_at<P>(a, 1, row, k, n), d_state);
                }
                store_lanes(grad_c + k, d_state, n);
            }
        }
    });
}

template <class P, class S>
void lstm_gates_typed(const LstmGates& a, bool backward) {
    const bool first = a.c == nullptr;
    const bool peephole = a.peephole != nullptr;
    if (backward) {
        if (first && peephole) return lstm_gates_backward_rows<P, S, true, true>(a);
        if (first) return lstm_gates_backward_rows<P, S, true, false>(a);
        if (peephole) return lstm_gates_backward_rows<P, S, false, true>(a);
        return lstm_gates_backward_rows<P, S, false, false>(a);
    }
    if (first && peephole) return lstm_gates_forward_rows<P, S, true, true>(a);
    if (first) return lstm_gates_forward_rows<P, S, true, false>(a);
    if (peephole) return lstm_gates_forward_rows<P, S, false, true>(a);
    return lstm_gates_forward_rows<P, S, false, false>(a);
}

static const char* lstm_gates(const LstmGates& a, bool backward) {
    if (a.dtype == DType::f32) {
        lstm_gates_typed<float, float>(a, backward);
    } else if (a.state_dtype == DType::f32) {
        lstm_gates_typed<bf16, float>(a, backward);
    } else {
        lstm_gates_typed<bf16, bf16>(a, backward);
    }
    return nullptr;
}

}  // namespace unrain::UNRAIN_TIER
