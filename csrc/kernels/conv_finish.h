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

UNRAIN_HD bool is_simple(Act act) { return act <= Act::slope; }

UNRAIN_HD Vec simple_activation(Act act, Vec a, Vec slope) {
    if (act == Act::relu) return rectified(a);
    if (act == Act::slope) return leaned(a, slope);
    if (act == Act::relu6) return min(set1(6.0F), rectified(a));
    return a;
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

struct Finish {
    const float *bias, *slope1, *slope2;  // [packed outputs]
    Act act1, act2;
    const void* add;
    void* y;
    bool add_f32, y_f32, simple;
    int parts;
    Index channels, stored, outputs;
    Index rows, columns;  // of the grid

    Finish(const ConvLayer& a, const ConvPlan& p, const ConvCall& call)
        : bias(static_cast<const float*>(call.packed)),
          slope1(bias + p.outputs),
          slope2(slope1 + p.outputs),
          act1(a.act1),
          act2(a.act2),
          add(a.adds ? call.add : nullptr),
          y(call.y),
          add_f32(a.add_dtype == DType::f32),
          y_f32(a.y_dtype == DType::f32),
          simple(is_simple(a.act1) && is_simple(a.act2) && !a.y_thin),
          parts(p.parts),
          channels(p.channels),
          stored(p.stored),
          outputs(p.outputs),
          rows(places(a, call.height)),
          columns(places(a, call.width)) {}

    Index scale() const { return parts == 4 ? 2 : 1; }

    // Where in y the packed output k of a place is.
    Index offset(Index image, Index row, Index column, Index k) const {
        const Index part = k / stored;
        const Index y_row = (image * rows + row) * scale() + part / 2;
        return (y_row * columns * scale() + column * scale() + part % 2) * stored + k % stored;
    }
    Index step() const { return scale() * stored; }  // to the next place
};

UNRAIN_HD Vec load_either(const void* p, Index at, bool f32) {
    return f32 ? load(static_cast<const float*>(p) + at) : load(static_cast<const bf16*>(p) + at);
}

// A vector of sums with the bias in them; wide y and simple activations.
UNRAIN_HD void finish_simple(const Finish& f, Index at, Vec sum, Vec slope1, Vec slope2) {
    Vec v = simple_activation(f.act1, sum, slope1);
    if (f.add != nullptr) v = v + load_either(f.add, at, f.add_f32);
    v = simple_activation(f.act2, v, slope2);
    if (f.y_f32) {
        put(static_cast<float*>(f.y) + at, v);
    } else {
        put(static_cast<bf16*>(f.y) + at, v);
    }
}

// `count` places of a row, `width` packed outputs from k on of each, any y and activations.
static void finish_any(const Finish& f, Index image, Index row, Index column, Index k, const float* sums, Index count,
                       Index width) {
    const bool thin = f.stored < kBlock;
    for (Index r = 0; r < count; ++r) {
        for (Index n = 0; n < width; n += kLanes) {
            const Vec slope1 = load(f.slope1 + k + n), slope2 = load(f.slope2 + k + n);
            Vec v = any_activation(f.act1, load(sums + r * width + n), slope1);
            if (!thin) {
                const Index at = f.offset(image, row, column + r, k + n);
                if (f.add != nullptr) v = v + load_either(f.add, at, f.add_f32);
                v = any_activation(f.act2, v, slope2);
                if (f.y_f32) {
                    put(static_cast<float*>(f.y) + at, v);
                } else {
                    put(static_cast<bf16*>(f.y) + at, v);
                }
                continue;
            }
            float lanes[kLanes] = {};
            const Index pixels = least(Index{kLanes} / 4, f.parts - (k + n) / 4);
            if (f.add != nullptr) {
                for (Index q = 0; q < pixels; ++q) {
                    const float* add = static_cast<const float*>(f.add) + f.offset(image, row, column + r, k + n + 4 * q);
                    std::memcpy(lanes + 4 * q, add, 4 * sizeof(float));
                }
                v = v + load(lanes);
            }
            store(lanes, any_activation(f.act2, v, slope2));
            for (Index q = 0; q < pixels; ++q) {
                for (Index c = f.channels; c < 4; ++c) lanes[4 * q + c] = 0.0F;
                float* y = static_cast<float*>(f.y) + f.offset(image, row, column + r, k + n + 4 * q);
                std::memcpy(y, lanes + 4 * q, 4 * sizeof(float));
            }
        }
    }
}

// The gates of 16 channels from k / gates on, for `count` places of a row; sums with the bias in them.
template <class Y>
void finish_gates(const ConvLayer& a, const ConvCall& call, const Finish& f, Index at, Index k, const float* sums,
                  Index count) {
    const Index width = a.gates * kBlock, first = k / a.gates;
    const bool forgets = a.gates == 4;
    for (Index r = 0; r < count; ++r) {
        for (Index n = 0; n < kBlock; n += kLanes) {
            const float* gate = sums + r * width + n;
            const Index to = at + r * f.stored + first + n;
            const Index g = forgets ? 2 : 1;
            Vec cell = sigmoid_times_tanh(load(gate), load(gate + g * kBlock));
            if (forgets) cell = fma(sigmoid(load(gate + kBlock)), load(call.c + to), cell);
            store(call.c_next + to, cell);
            put(static_cast<Y*>(call.y) + to, sigmoid_times_tanh(load(gate + (g + 1) * kBlock), cell));
        }
    }
}

}  // namespace unrain::UNRAIN_TIER
