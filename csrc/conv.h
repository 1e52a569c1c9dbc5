// Every convolution of a network, for inference: what the layer is, its weights packed once, and one call per map.
//
//   y = act2(act1(conv(maps side by side) + bias) + add), or the gates of a ConvLSTM in place of the activations.
//
// Maps are channels-last. A wide map has its channels rounded up to 16 numbers a pixel, of which those beyond the
// channels must be finite (their weights are zero); a thin one has 4 numbers a pixel, float32, for 1 to 4 channels.
// Everything that decides how a layer is computed (`csrc/conv_plan.h`) is decided by the layer alone, never by the
// machine's load or the number of threads, on which no bit depends.
//
// Error   a direct convolution's in float32, but two to six times that where Winograd's form is taken (kernel 3 and
//         stride 1, or transposed, of wide maps); with `products` in bfloat16, bfloat16's.
// NaN     and infinity propagate; by Winograd also, as NaN, to all pixels of the 4 x 4 tiles that read one, and
//         in grouped convolutions to the outputs of other groups in the same 16.
#pragma once

#include "storage.h"

namespace unrain {

enum class Act : int { none = 0, relu = 1, relu6 = 2, slope = 3, sigmoid = 4, tanh = 5, silu = 6, gelu = 7 };

constexpr int kMostSources = 16;

struct ConvSource {
    std::ptrdiff_t channels;
    bool thin;    // 1 to 4 channels in 4 numbers
    DType dtype;  // float32 or bfloat16; float32 where it is thin
};

struct ConvLayer {
    int sources;  // the maps that lie side by side, 1 to 16
    ConvSource source[kMostSources];
    std::ptrdiff_t outputs;  // O of the weights: gates * C, 4 * C before a shuffle, C of a transposed one
    int kernel;              // 1, 3, 5, 7 with padding dilation * (kernel - 1) / 2, or as large as the stride, without
    int stride, dilation, groups;
    int form;     // 0: weights [O, I / groups, kernel, kernel]; 1: [I, O, kernel, kernel], transposed to twice the
                  // size: kernel 2, or 3 (padding 1, output padding 1), or 4 (padding 1)
    int shuffle;  // 1, or 2: the outputs are stored as C channels at twice the size, as by pixel_shuffle
    int gates;    // 0; 4: the outputs are the gates i, f, g, o of C each, y is h; 3: i, g, o of a first step
    Act act1, act2;
    bool adds;       // a map like y
    DType maps;      // the dtype that wide maps have as a rule: of h
    DType products;  // bfloat16 only where multiplies_bf16()
    DType y_dtype;   // float32 or bfloat16
    bool y_thin;     // y (and what is added) has 1 to 4 channels in 4 numbers, float32; those beyond are zeros
    DType add_dtype;
};

struct ConvCall {
    const void* x[kMostSources];
    const void* packed;
    const void* add;  // may be y, but no x may be
    void* y;
    const float* c;  // gates: [batch, height, width, stored channels]; c_next may be c
    float* c_next;
    std::ptrdiff_t batch, height, width;  // of the inputs
    void* workspace;                      // workspace_bytes() of the layer, on a boundary of 64
    int threads;
};

// nullptr, or why there is no kernel for the layer.
const char* check(const ConvLayer& layer);

// Multiple of 64.
std::ptrdiff_t packed_bytes(const ConvLayer& layer);

// `bias`, `slope1` and `slope2` are [outputs] as the weights have them, or null. `packed` starts on a boundary of 64.
void pack(const ConvLayer& layer, const float* weight, const float* bias, const float* slope1, const float* slope2,
          void* packed);

std::ptrdiff_t workspace_bytes(const ConvLayer& layer, std::ptrdiff_t batch, std::ptrdiff_t height,
                               std::ptrdiff_t width, int threads);

// `tier` is a name out of runnable_tiers(), or null for the best. A message where the call is wrong.
const char* run(const ConvLayer& layer, const ConvCall& call, const char* tier = nullptr);

// The gradient of a 3x3 convolution of stride 1, its padding the dilation, to its weights and its bias, by Winograd's
// form: x and grad have channels in multiples of 16, those beyond the channels finite. Its error is like the forward's.
struct ConvGradient {
    const void *x, *grad;                // [batch, height, width, stored channels]
    DType dtype;                         // of both: float32 or bfloat16
    std::ptrdiff_t inputs, outputs;      // channels
    int dilation;
    std::ptrdiff_t batch, height, width;
    float *grad_weight, *grad_bias;      // [outputs, inputs, 3, 3], [outputs] or null
    void* workspace;                     // workspace_bytes(), on a boundary of 64
    int threads;
};

const char* check(const ConvGradient& args);

std::ptrdiff_t workspace_bytes(const ConvGradient& args);

const char* run(const ConvGradient& args, const char* tier = nullptr);

}  // namespace unrain
