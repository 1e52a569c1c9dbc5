// The arguments of every op, as plain memory: what bindings.cpp fills in and a C++ caller may fill in himself.
//
// Each `run` checks the arguments, picks the fastest tier this machine can run (or the one asked for), and returns
// nullptr or a message that says which argument is wrong. Nothing throws, nothing is kept between calls.
#pragma once

#include "conv.h"
#if !defined(__CUDACC_RTC__)
#include "library/frames.h"
#include "program/operation.h"
#endif

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

struct GruGates {
    // [rows, inner], rows `pitch` numbers apart: h is null at a first step, r and hidden where the reset came before
    const void *z, *candidate, *h, *r, *hidden;
    std::ptrdiff_t z_pitch, candidate_pitch, h_pitch, r_pitch, hidden_pitch;
    std::ptrdiff_t rows, inner;
    DType dtype, state_dtype;  // of what convolutions gave; of h, h_next and their gradients
    int z_keeps;               // z weighs the old state
    Act activation;            // of the candidate: none, relu or tanh
    void* h_next;              // written by the forward pass
    const void* grad;
    void *grad_z, *grad_candidate, *grad_h, *grad_r, *grad_hidden;  // written by the backward pass
    int threads;
};

// Whether this machine has products of bfloat16, and this build uses them.
bool multiplies_bf16();

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

constexpr int kMostLevels = 16;

enum class PyramidKernel : int { box = 0, binomial = 1 };

// Pictures of `channels` interleaved numbers per pixel: NCHW is batch * C pictures of one channel, NHWC batch pictures
// of C.
struct GaussianPyramid {
    const void* x;  // [pictures, height, width, channels]
    std::ptrdiff_t pictures, height, width, channels;
    PyramidKernel kernel;
    int count;                             // levels
    int factors[kMostLevels];              // level k has ceil(height / factors[k]) x ceil(width / factors[k]) pixels
    DType dtype;                           // float32, bfloat16, or uint8 (forward only)
    void* levels[kMostLevels];             // forward
    const void* grad_levels[kMostLevels];  // backward
    void* grad_x;
    int threads;
};

struct FrameToTensor {
    const std::uint8_t* frame;  // [batch, height, width, 3], or NV12: [batch, height * 3 / 2, width]
    void* image;                // [batch, 3, padded_height, padded_width], or channels last
    std::ptrdiff_t batch, height, width, padded_height, padded_width;
    int bgr, nv12, channels_last;
    float black, white, chroma;  // NV12: the luma of black, the distance to white, the range of chroma
    float kr, kb;                // NV12: the luma weights of red and blue
    DType dtype;                 // float32, float16 or bfloat16
    int threads;
};

struct TensorToFrame {
    const void *image, *residual;  // [batch, 3, image_height, image_width], or channels last; residual may be null
    std::uint8_t* frame;           // [batch, height, width, 3]
    std::ptrdiff_t batch, image_height, image_width, height, width;
    int bgr, truncate, channels_last;
    DType dtype;
    int threads;
};

struct Ssim {
    const void *x, *y;  // [pictures, height, width, channels]
    std::ptrdiff_t pictures, height, width, channels;
    int valid;  // only windows that lie inside; else the borders are padded with zeros
    float data_range;
    float taps[6];  // half of the window: from the outermost weight to the middle one
    DType dtype;
    void* result;           // forward: one number, the mean
    const void* grad;       // backward: one number
    void *grad_x, *grad_y;  // either may be null
    int threads;
};

struct MemoryRead {
    const void* query;  // [queries, columns]
    const void* items;  // [items_count, columns]
    std::ptrdiff_t queries, items_count, columns;
    DType dtype;
    void *read, *weights;                  // forward: as query, [queries, items_count]; weights may be null
    const void *grad_read, *grad_weights;  // the latter may be null
    void *grad_query, *grad_items;         // backward
    int threads;
};

struct MemoryUpdate {
    const void* query;  // [queries, columns]
    const void* items;  // [items_count, columns]
    std::ptrdiff_t queries, items_count, columns;
    int hard;
    DType dtype;
    void* result;                   // forward: as items
    const void* grad;               // as items
    void *grad_query, *grad_items;  // backward
    int threads;
};

#if !defined(__CUDACC_RTC__)  // what follows is the host's

// One entry per op: what a tier offers.
struct Tier {
    const char* name;
    const char* (*lstm_gates)(const LstmGates&, bool backward);
    const char* (*gru_gates)(const GruGates&, bool backward);
    const char* (*conv)(const ConvLayer&, const ConvCall&);
    const char* (*conv_gradient)(const ConvGradient&);
    const char* (*charbonnier)(const Charbonnier&, bool backward);
    const char* (*gaussian_pyramid)(const GaussianPyramid&, bool backward);
    const char* (*frame_to_tensor)(const FrameToTensor&, bool backward);
    const char* (*tensor_to_frame)(const TensorToFrame&, bool backward);
    const char* (*ssim)(const Ssim&, bool backward);
    const char* (*memory_read)(const MemoryRead&, bool backward);
    const char* (*memory_update)(const MemoryUpdate&, bool backward);
    program::Kernels program;
    library::FrameKernels frames;
};

// The tiers compiled in and runnable here, best first; null-terminated.
const Tier* const* runnable_tiers();

// The one of that name, or the best for null; nullptr where this machine cannot run it.
const Tier* pick_tier(const char* name);
constexpr const char* kNoTier = "tier: this machine cannot run it, or there is none of that name";

// `tier` is a name out of runnable_tiers(), or null for the best.
const char* run(const LstmGates& args, bool backward, const char* tier = nullptr);
const char* run(const GruGates& args, bool backward, const char* tier = nullptr);
const char* run(const Charbonnier& args, bool backward, const char* tier = nullptr);
const char* run(const GaussianPyramid& args, bool backward, const char* tier = nullptr);
const char* run(const FrameToTensor& args, bool backward, const char* tier = nullptr);
const char* run(const TensorToFrame& args, bool backward, const char* tier = nullptr);
const char* run(const Ssim& args, bool backward, const char* tier = nullptr);
const char* run(const MemoryRead& args, bool backward, const char* tier = nullptr);
const char* run(const MemoryUpdate& args, bool backward, const char* tier = nullptr);

#endif

}  // namespace unrain
