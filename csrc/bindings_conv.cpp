// A layer (csrc/conv.h) with its weights and its call in one struct, a source by three lists of the same length; memory
// as addresses.
#include "bindings.h"
#include "conv.h"

using namespace unrain;

namespace {

struct Convolution {
    std::ptrdiff_t source_channels[kMostSources];
    bool source_thin[kMostSources];
    DType source_dtype[kMostSources];
    ConvLayer layer;
    ConvCall call;
    const float *weight, *bias, *slope1, *slope2;
    void* packed;
};

#define UNRAIN_FIELD(x) field_of<decltype(Convolution::x)>(#x, offsetof(Convolution, x))
#define UNRAIN_LAYER(x, otherwise) \
    field_of<decltype(ConvLayer::x)>(#x, offsetof(Convolution, layer) + offsetof(ConvLayer, x), otherwise)
#define UNRAIN_CALL(x) field_of<decltype(ConvCall::x)>(#x, offsetof(Convolution, call) + offsetof(ConvCall, x))

constexpr Field kFields[] = {
    UNRAIN_FIELD(source_channels),
    UNRAIN_FIELD(source_thin),
    UNRAIN_FIELD(source_dtype),
    UNRAIN_LAYER(outputs, 0),
    UNRAIN_LAYER(kernel, 0),
    UNRAIN_LAYER(stride, 1),
    UNRAIN_LAYER(dilation, 1),
    UNRAIN_LAYER(groups, 1),
    UNRAIN_LAYER(form, 0),
    UNRAIN_LAYER(shuffle, 1),
    UNRAIN_LAYER(gates, 0),
    UNRAIN_LAYER(act1, 0),
    UNRAIN_LAYER(act2, 0),
    UNRAIN_LAYER(adds, 0),
    UNRAIN_LAYER(maps, 0),
    UNRAIN_LAYER(products, 0),
    UNRAIN_LAYER(y_dtype, 0),
    UNRAIN_LAYER(y_thin, 0),
    UNRAIN_LAYER(add_dtype, 0),
    UNRAIN_CALL(x),
    UNRAIN_CALL(add),
    UNRAIN_CALL(y),
    UNRAIN_CALL(c),
    UNRAIN_CALL(c_next),
    UNRAIN_CALL(batch),
    UNRAIN_CALL(height),
    UNRAIN_CALL(width),
    UNRAIN_CALL(workspace),
    UNRAIN_CALL(threads),
    UNRAIN_FIELD(weight),
    UNRAIN_FIELD(bias),
    UNRAIN_FIELD(slope1),
    UNRAIN_FIELD(slope2),
    UNRAIN_FIELD(packed),
    {},
};

#define UNRAIN_GRADIENT(x) field_of<decltype(ConvGradient::x)>(#x, offsetof(ConvGradient, x))

constexpr Field kGradientFields[] = {
    UNRAIN_GRADIENT(x),
    UNRAIN_GRADIENT(grad),
    UNRAIN_GRADIENT(dtype),
    UNRAIN_GRADIENT(inputs),
    UNRAIN_GRADIENT(outputs),
    UNRAIN_GRADIENT(dilation),
    UNRAIN_GRADIENT(batch),
    UNRAIN_GRADIENT(height),
    UNRAIN_GRADIENT(width),
    UNRAIN_GRADIENT(grad_weight),
    UNRAIN_GRADIENT(grad_bias),
    UNRAIN_GRADIENT(workspace),
    UNRAIN_GRADIENT(threads),
    {},
};

Convolution read(const void* arguments) {
    Convolution a = *static_cast<const Convolution*>(arguments);
    for (int k = 0; k < kMostSources; ++k)
        a.layer.source[k] = {a.source_channels[k], a.source_thin[k], a.source_dtype[k]};
    while (a.layer.sources < kMostSources && a.source_channels[a.layer.sources] != 0) ++a.layer.sources;
    a.call.packed = a.packed;
    return a;
}

const char* packed_size(const void* arguments, int, const char*, std::ptrdiff_t* size) {
    const Convolution a = read(arguments);
    const char* wrong = check(a.layer);
    if (wrong == nullptr) *size = packed_bytes(a.layer);
    return wrong;
}

const char* pack_weights(const void* arguments, int, const char*, std::ptrdiff_t*) {
    const Convolution a = read(arguments);
    if (const char* wrong = check(a.layer)) return wrong;
    if (a.weight == nullptr || a.packed == nullptr) return "weight or packed is missing";
    pack(a.layer, a.weight, a.bias, a.slope1, a.slope2, a.packed);
    return nullptr;
}

const char* workspace_size(const void* arguments, int, const char*, std::ptrdiff_t* size) {
    const Convolution a = read(arguments);
    const char* wrong = check(a.layer);
    if (wrong == nullptr) *size = workspace_bytes(a.layer, a.call.batch, a.call.height, a.call.width, a.call.threads);
    return wrong;
}

const char* convolve(const void* arguments, int, const char* tier, std::ptrdiff_t*) {
    const Convolution a = read(arguments);
    return run(a.layer, a.call, tier);
}

const char* gradient_workspace_size(const void* arguments, int, const char*, std::ptrdiff_t* size) {
    const ConvGradient& a = *static_cast<const ConvGradient*>(arguments);
    const char* wrong = check(a);
    if (wrong == nullptr) *size = workspace_bytes(a);
    return wrong;
}

const char* gradient(const void* arguments, int, const char* tier, std::ptrdiff_t*) {
    return run(*static_cast<const ConvGradient*>(arguments), tier);
}

}  // namespace

// The bytes of a layer's packed weights, which start at a multiple of 64; the packing; the bytes that a call works in,
// from a multiple of 64 on; the call; the same two of the gradient to weights.
UNRAIN_SHOWN const Function* unrain_native_convolution() {
    static const Function functions[] = {
        {"conv_packed_bytes", kFields, sizeof(Convolution), &packed_size},
        {"conv_pack", kFields, sizeof(Convolution), &pack_weights},
        {"conv_workspace_bytes", kFields, sizeof(Convolution), &workspace_size},
        {"conv", kFields, sizeof(Convolution), &convolve},
        {"conv_gradient_workspace_bytes", kGradientFields, sizeof(ConvGradient), &gradient_workspace_size},
        {"conv_gradient", kGradientFields, sizeof(ConvGradient), &gradient},
        {},
    };
    return functions;
}
