// What comes between the sums of a convolution and the memory they go to: activations, a sum, the place and the dtype.
#pragma once

#include "../conv_plan.h"
#include "../simd/math.h"
#include "conv_products.h"

namespace unrain::UNRAIN_TIER {

// Of two numbers one of which is none, max gives the second: NaN stays NaN.
UNRAIN_HD Vec rectified(Vec a) { return max(zero(), a); }

// A PReLU; of NaN both parts are NaN.
UNRAIN_HD Vec leaned(Vec a, Vec slope) { return fma(slope, min(zero(), a), rectified(a)); }

// The error function within 2 units in the last place: a quotient of polynomials, 1 from 4 on.
UNRAIN_HD Vec erf(Vec a) {
    const Vec x = min(set1(4.0F), max(set1(-4.0F), a)), s = x * x;
    Vec p = set1(-2.72614225801306e-10F);
    p = fma(p, s, set1(2.77068142495902e-08F));
    p = fma(p, s, set1(-2.10102402082508e-06F));
    p = fma(p, s, set1(-5.69250639462346e-05F));
    p = fma(p, s, set1(-7.34990630326855e-04F));
    p = fma(p, s, set1(-2.95459980854025e-03F));
    p = fma(p, s, set1(-1.60960333262415e-02F));
    Vec q = set1(-1.45660718464996e-05F);
    q = fma(q, s, set1(-2.13374055278905e-04F));
    q = fma(q, s, set1(-1.68282697438203e-03F));
    q = fma(q, s, set1(-7.37332916720468e-03F));
    q = fma(q, s, set1(-1.42647390514189e-02F));
    return x * p / q;
}

template <Act kAct>
UNRAIN_HD Vec simple_activation(Vec a, Vec slope) {
    if constexpr (kAct == Act::relu) return rectified(a);
    if constexpr (kAct == Act::slope) return leaned(a, slope);
    if constexpr (kAct == Act::relu6) return min(set1(6.0F), rectified(a));
    return a;
}

UNRAIN_HD bool is_simple(Act act) { return act <= Act::slope; }

UNRAIN_HD Vec simple_activation(Act act, Vec a, Vec slope) {
    if (act == Act::relu) return simple_activation<Act::relu>(a, slope);
    if (act == Act::slope) return simple_activation<Act::slope>(a, slope);
    return act == Act::relu6 ? simple_activation<Act::relu6>(a, slope) : a;
}

static Vec any_activation(Act act, Vec a, Vec slope) {
    Vec unused;
    switch (act) {
        case Act::sigmoid: return sigmoid(a);
        case Act::tanh: return tanh(a, unused);
        case Act::silu: return a * sigmoid(a);
        case Act::gelu: return set1(0.5F) * a * (set1(1.0F) + erf(a * set1(0.707106781F)));
        default: return simple_activation(act, a, slope);
    }
}

// Places that are finished together: where in y the first is, the distances to the next ones, how many there are.
struct Spread {
    Index at, right, below, columns, rows;
};

struct Finish;

// 16 packed outputs from k on of some places; sums [rows, sum_columns, 16], with the bias in them.
using Ending = void (*)(const Finish& f, const Spread& to, Index k, const float* sums, Index sum_columns);

struct Finish {
    const float *bias, *slope1, *slope2;  // [packed outputs]
    Act act1, act2;
    const void* add;
    void* y;
    bool add_f32, y_f32;
    int parts;
    Index channels, stored;
    Index rows, columns;  // of the grid
    Ending ending;

    Finish(const ConvLayer& a, const ConvPlan& p, const ConvCall& call);

    Index scale() const { return parts == 4 ? 2 : 1; }

    // Where in y the packed output k of a place is.
    Index offset(Index image, Index row, Index column, Index k) const {
        const Index part = k / stored;
        const Index y_row = (image * rows + row) * scale() + part / 2;
        return (y_row * columns * scale() + column * scale() + part % 2) * stored + k % stored;
    }
    // To the next place of a row, and to that below.
    Index right() const { return scale() * stored; }
    Index below() const { return right() * columns * scale(); }
};

UNRAIN_HD Vec load_either(const void* p, Index at, bool f32) {
    return f32 ? load(static_cast<const float*>(p) + at) : load(static_cast<const bf16*>(p) + at);
}
UNRAIN_HD void put_either(void* p, Index at, Vec a, bool f32) {
    if (f32) {
        put(static_cast<float*>(p) + at, a);
    } else {
        put(static_cast<bf16*>(p) + at, a);
    }
}

// Into a wide y.
template <Act kFirst, bool kAdds, Act kSecond>
void end_simply(const Finish& f, const Spread& to, Index k, const float* sums, Index sum_columns) {
    // In variables of their own: the stores below might change the fields, for all that the compiler knows.
    const void* add = f.add;
    void* y = f.y;
    const bool add_f32 = f.add_f32, y_f32 = f.y_f32;
    const Index right = to.right, columns = to.columns;
    for (Index n = 0; n < kBlock; n += kLanes) {
        const Vec slope1 = load(f.slope1 + k + n), slope2 = load(f.slope2 + k + n);
        for (Index i = 0; i < to.rows; ++i) {
            const float* sum = sums + i * sum_columns * kBlock + n;
            const Index at = to.at + i * to.below + n;
            for (Index j = 0; j < columns; ++j) {
                Vec v = simple_activation<kFirst>(load(sum + j * kBlock), slope1);
                if constexpr (kAdds) v = v + load_either(add, at + j * right, add_f32);
                put_either(y, at + j * right, simple_activation<kSecond>(v, slope2), y_f32);
            }
        }
    }
}

static void end_anyhow(const Finish& f, const Spread& to, Index k, const float* sums, Index sum_columns) {
    for (Index n = 0; n < kBlock; n += kLanes) {
        const Vec slope1 = load(f.slope1 + k + n), slope2 = load(f.slope2 + k + n);
        for (Index i = 0; i < to.rows; ++i) {
            for (Index j = 0; j < to.columns; ++j) {
                const Index at = to.at + i * to.below + j * to.right + n;
                Vec v = any_activation(f.act1, load(sums + (i * sum_columns + j) * kBlock + n), slope1);
                if (f.add != nullptr) v = v + load_either(f.add, at, f.add_f32);
                put_either(f.y, at, any_activation(f.act2, v, slope2), f.y_f32);
            }
        }
    }
}

// Into a thin y: the 16 outputs are one part of 4 numbers, or four, of which each two lie side by side.
static void end_thinly(const Finish& f, const Spread& to, Index k, const float* sums, Index sum_columns) {
    const float* add = static_cast<const float*>(f.add);
    float* y = static_cast<float*>(f.y);
    const Act act1 = f.act1, act2 = f.act2;
    const bool simple = is_simple(act1) && is_simple(act2), two = f.parts == 4;
    const Index line = f.columns * f.scale() * 4, width = two ? kBlock : 4;
    const std::size_t run = (two ? 8 : 4) * sizeof(float);
    float real[kBlock], added[kBlock] = {}, lanes[kBlock];
    for (Index n = 0; n < kBlock; ++n) real[n] = n % 4 < f.channels ? 1.0F : 0.0F;
    for (Index i = 0; i < to.rows; ++i) {
        for (Index j = 0; j < to.columns; ++j) {
            const Index at = to.at + i * to.below + j * to.right;
            if (add != nullptr) {
                std::memcpy(added, add + at, run);
                if (two) std::memcpy(added + 8, add + at + line, run);
            }
            for (Index n = 0; n < width; n += kLanes) {
                const Vec slope1 = load(f.slope1 + k + n), slope2 = load(f.slope2 + k + n);
                Vec v = load(sums + (i * sum_columns + j) * kBlock + n);
                v = (simple ? simple_activation(act1, v, slope1) : any_activation(act1, v, slope1)) + load(added + n);
                v = simple ? simple_activation(act2, v, slope2) : any_activation(act2, v, slope2);
                store(lanes + n, select(less(set1(0.5F), load(real + n)), v, zero()));
            }
            std::memcpy(y + at, lanes, run);
            if (two) std::memcpy(y + at + line, lanes + 8, run);
        }
    }
}

template <Act kFirst>
Ending simple_ending(bool adds, Act second) {
    if (!adds) return second == Act::none ? end_simply<kFirst, false, Act::none> : end_anyhow;
    switch (second) {
        case Act::none: return end_simply<kFirst, true, Act::none>;
        case Act::relu: return end_simply<kFirst, true, Act::relu>;
        case Act::slope: return end_simply<kFirst, true, Act::slope>;
        default: return end_anyhow;
    }
}

static Ending ending_of(const ConvLayer& a) {
    if (a.y_thin) return end_thinly;
    switch (a.act1) {
        case Act::none: return simple_ending<Act::none>(a.adds, a.act2);
        case Act::relu: return simple_ending<Act::relu>(a.adds, a.act2);
        case Act::relu6: return simple_ending<Act::relu6>(a.adds, a.act2);
        case Act::slope: return simple_ending<Act::slope>(a.adds, a.act2);
        default: return end_anyhow;
    }
}

inline Finish::Finish(const ConvLayer& a, const ConvPlan& p, const ConvCall& call)
    : bias(static_cast<const float*>(call.packed)),
      slope1(bias + p.outputs),
      slope2(slope1 + p.outputs),
      act1(a.act1),
      act2(a.act2),
      add(a.adds ? call.add : nullptr),
      y(call.y),
      add_f32(a.add_dtype == DType::f32),
      y_f32(a.y_dtype == DType::f32),
      parts(p.parts),
      channels(p.channels),
      stored(p.stored),
      rows(places(a, call.height)),
      columns(places(a, call.width)),
      ending(ending_of(a)) {}

// The gates of 16 channels from k / gates on, for `count` places of a row of which the first is at `at` in y;
// sums [count, gates, 16], with the bias in them.
static void finish_gates(const ConvLayer& a, const ConvCall& call, const Finish& f, Index at, Index k,
                         const float* sums, Index count) {
    const Index width = a.gates * kBlock, first = k / a.gates, stored = f.stored;
    const bool forgets = a.gates == 4, y_f32 = f.y_f32;
    const Index g = forgets ? 2 : 1;
    for (Index r = 0; r < count; ++r) {
        for (Index n = 0; n < kBlock; n += kLanes) {
            const float* gate = sums + r * width + n;
            const Index to = at + r * stored + first + n;
            Vec cell = sigmoid_times_tanh(load(gate), load(gate + g * kBlock));
            if (forgets) cell = fma(sigmoid(load(gate + kBlock)), load(call.c + to), cell);
            store(call.c_next + to, cell);
            put_either(call.y, to, sigmoid_times_tanh(load(gate + (g + 1) * kBlock), cell), y_f32);
        }
    }
}

}  // namespace unrain::UNRAIN_TIER
