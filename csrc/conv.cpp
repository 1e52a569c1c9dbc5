// The checks that every tier of a convolution relies on, and the choice of a tier. Compiled without SIMD flags.
#include "conv_plan.h"
#include "ops.h"

namespace unrain {

// The unit of tiers/ that multiplies bfloat16, where this build has one.
#if defined(__x86_64__) || defined(_M_X64)
#define UNRAIN_BF16_UNIT avx512bf16
#elif defined(UNRAIN_NEONBF16)
#define UNRAIN_BF16_UNIT neonbf16
#endif
#if defined(UNRAIN_BF16_UNIT)
namespace UNRAIN_BF16_UNIT {
const char* conv_in_bf16(const ConvLayer& layer, const ConvCall& call);
}
#endif

namespace {

using Index = std::ptrdiff_t;

constexpr Index kMostChannels = 1 << 20;

bool storage(DType d) { return d == DType::f32 || d == DType::bf16; }

bool known(Act act) { return act >= Act::none && act <= Act::gelu; }

const char* check_sources(const ConvLayer& a) {
    if (a.sources < 1 || a.sources > kMostSources) return "a convolution has 1 to 16 sources";
    for (int k = 0; k < a.sources; ++k) {
        const ConvSource& source = a.source[k];
        if (source.channels < 1 || source.channels > kMostChannels) return "a source has 1 to 2^20 channels";
        if (!storage(source.dtype)) return "a source is float32 or bfloat16";
        if (!source.thin) continue;
        if (source.channels > 4) return "a thin source has 1 to 4 channels";
        if (source.dtype != DType::f32) return "a thin source is float32";
    }
    return nullptr;
}

const char* check_window(const ConvLayer& a) {
    if (a.form == 1) {
        if (a.kernel < 2 || a.kernel > 4) return "a transposed convolution has a kernel of 2, 3 or 4";
        if (a.dilation != 1 || a.groups != 1) return "a transposed convolution has no dilation and no groups";
        return a.shuffle > 1 ? "a transposed convolution is not shuffled as well" : nullptr;
    }
    if (a.form != 0) return "form is 0 or 1";
    if (a.kernel < 1 || a.kernel > 16) return "kernel is 1 to 16";
    if (a.stride < 1 || a.stride > 16) return "stride is 1 to 16";
    if (a.kernel % 2 == 0 && a.kernel != a.stride) return "an even kernel is as large as its stride";
    if (a.dilation < 1 || a.dilation > 1024) return "dilation is 1 to 1024";
    if (a.kernel % 2 == 0 && a.dilation != 1) return "an even kernel has no dilation";
    return nullptr;
}

const char* check_outputs(const ConvLayer& a) {
    if (a.outputs < 1 || a.outputs > kMostChannels) return "a convolution has 1 to 2^20 outputs";
    if (a.shuffle != 0 && a.shuffle != 1 && a.shuffle != 2) return "shuffle is 1 or 2";
    if (a.shuffle == 2 && a.outputs % 4 != 0) return "shuffled outputs are a multiple of 4";
    if (a.groups < 1 || a.outputs % a.groups != 0 || input_channels(a) % a.groups != 0) {
        return "groups divide the inputs and the outputs";
    }
    if (!known(a.act1) || !known(a.act2)) return "an activation is not known";
    if (!storage(a.y_dtype) || !storage(a.maps) || !storage(a.products)) return "dtypes are float32 or bfloat16";
    if (a.adds && !storage(a.add_dtype)) return "what is added is float32 or bfloat16";
    if (a.products == DType::bf16 && !multiplies_bf16()) return "this machine has no products of bfloat16";
    if (a.y_thin) {
        if (plan_of(a).channels > 4) return "a thin result has 1 to 4 channels";
        if (a.y_dtype != DType::f32) return "a thin result is float32";
        if (a.adds && a.add_dtype != DType::f32) return "what is added to a thin result is float32";
    }
    if (a.gates == 0) return nullptr;
    if (a.gates != 3 && a.gates != 4) return "gates are 0, 3 or 4";
    if (a.outputs % a.gates != 0) return "the outputs are so many channels of each gate";
    if (a.form != 0 || a.stride != 1 || a.shuffle > 1 || a.y_thin || a.adds) return "gates are a plain convolution's";
    if (a.act1 != Act::none || a.act2 != Act::none) return "gates have activations of their own";
    return nullptr;
}

const char* check_call(const ConvLayer& a, const ConvCall& c) {
    if (c.threads < 1) return "threads must be at least 1";
    if (c.batch < 0 || c.height < 0 || c.width < 0) return "sizes must not be negative";
    if (c.packed == nullptr || c.workspace == nullptr) return "packed or workspace is missing";
    if (c.batch == 0 || places(a, c.height) == 0 || places(a, c.width) == 0) return nullptr;
    for (int k = 0; k < a.sources; ++k) {
        if (c.x[k] == nullptr) return "an x is missing";
    }
    if (c.y == nullptr) return "y is missing";
    if (a.adds && c.add == nullptr) return "add is missing";
    if (a.gates != 0 && (c.c_next == nullptr || (a.gates == 4 && c.c == nullptr))) return "c or c_next is missing";
    return nullptr;
}

}  // namespace

using Index = std::ptrdiff_t;

const char* check(const ConvLayer& a) {
    if (const char* wrong = check_sources(a)) return wrong;
    if (const char* wrong = check_window(a)) return wrong;
    return check_outputs(a);
}

const char* run(const ConvLayer& a, const ConvCall& call, const char* tier) {
    if (const char* wrong = check(a)) return wrong;
    if (const char* wrong = check_call(a, call)) return wrong;
    const Tier* chosen = pick_tier(tier);
    if (chosen == nullptr) return kNoTier;
    if (call.batch == 0 || places(a, call.height) == 0 || places(a, call.width) == 0) return nullptr;
#if defined(UNRAIN_BF16_UNIT)
    if (plan_of(a).products == DType::bf16) return UNRAIN_BF16_UNIT::conv_in_bf16(a, call);
#endif
    return chosen->conv(a, call);
}

const char* check(const ConvGradient& a) {
    if (a.threads < 1) return "threads must be at least 1";
    if (!storage(a.dtype)) return "dtype must be float32 or bfloat16";
    if (a.batch < 0 || a.height < 0 || a.width < 0) return "sizes must not be negative";
    if (a.inputs < 1 || a.inputs > kMostChannels || a.outputs < 1 || a.outputs > kMostChannels) {
        return "a convolution has 1 to 2^20 inputs and outputs";
    }
    return a.dilation < 1 || a.dilation > 1024 ? "dilation is 1 to 1024" : nullptr;
}

const char* run(const ConvGradient& a, const char* tier) {
    if (const char* wrong = check(a)) return wrong;
    if (a.grad_weight == nullptr || a.workspace == nullptr) return "grad_weight or workspace is missing";
    const bool some = a.batch > 0 && a.height > 0 && a.width > 0;
    if (some && (a.x == nullptr || a.grad == nullptr)) return "x or grad is missing";
    const Tier* chosen = pick_tier(tier);
    return chosen == nullptr ? kNoTier : chosen->conv_gradient(a);
}

}  // namespace unrain
