// The arguments of every op, as plain memory: what bindings.cpp fills in and a C++ caller may fill in himself.
//
// Each `run` checks the arguments, picks the fastest tier this machine can run (or the one asked for), and returns nullptr
// or a message that says which argument is wrong. Nothing throws, nothing is kept between calls.
#pragma once

#include <cstddef>
#include <cstdint>

#include "storage.h"

namespace unrain {

struct LstmGates {
    const void* pre;       // [rows, 4 or 3 gates, inner]: i, f, g, o, or i, g, o at a first step
    const void* c;         // [rows, inner]; null at a first step
    const void* peephole;  // [3, peephole_rows, inner], row r of the image using row r % peephole_rows; or null
    std::ptrdiff_t rows, inner, peephole_rows;
    DType dtype, state_dtype;  // of pre, peephole, h; of c and its gradients
    void *h, *c_next;          // written by the forward pass
    const void *grad_h, *grad_c_next;
    void *grad_pre, *grad_c;  // written by the backward pass
    int threads;
};

enum class Reduction : int { none = 0, sum = 1, mean = 2 };

struct Charbonnier {
    const void *pred, *target;  // [count]
    std::ptrdiff_t count;
    DType dtype;
    float eps;
    Reduction reduction;
    void* loss;  // forward: [count] for none, else one number
    const void* grad_loss;
    void *grad_pred, *grad_target;  // backward: [count]; either may be null
    int threads;
};

// One entry per op: what a tier offers.
struct Tier {
    const char* name;
    const char* (*lstm_gates)(const LstmGates&, bool backward);
    const char* (*charbonnier)(const Charbonnier&, bool backward);
};

// The tiers compiled in and runnable here, best first; null-terminated.
const Tier* const* runnable_tiers();

// `tier` is a name out of runnable_tiers(), or null for the best.
const char* run(const LstmGates& args, bool backward, const char* tier = nullptr);
const char* run(const Charbonnier& args, bool backward, const char* tier = nullptr);

}  // namespace unrain
