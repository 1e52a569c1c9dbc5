// What of a convolution needs no vectors: the checks that every tier relies on, packing, and the choice of a tier.
// Compiled without SIMD flags.
#include "conv_plan.h"

#include <cstring>

#include "ops.h"

namespace unrain {

#if defined(__x86_64__) || defined(_M_X64)
namespace avx512bf16 {
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

std::uint16_t to_bf16_bits(double x) {
    const float rounded = static_cast<float>(x);
    std::uint32_t bits;
    std::memcpy(&bits, &rounded, 4);
    if (rounded != rounded) return static_cast<std::uint16_t>((bits | 0x400000U) >> 16);
    return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

void put_number(void* numbers, Index at, DType dtype, double x) {
    if (dtype == DType::bf16) {
        static_cast<std::uint16_t*>(numbers)[at] = to_bf16_bits(x);
    } else {
        static_cast<float*>(numbers)[at] = static_cast<float>(x);
    }
}

// The weights as a window of taps over the plan's inputs.
class Taps {
public:
    Taps(const ConvLayer& a, const float* weight)
        : a_(a), weight_(weight), channels_(input_channels(a)), reads_(channels_ / a.groups) {}

    // Of an input channel of the maps side by side; 0 where there is no tap.
    double operator()(ConvOutput o, Index row, Index column, Index c) const {
        if (o.channel < 0 || c < 0) return 0.0;
        const Index k = a_.kernel;
        if (a_.form == 1) {
            const Index y = transposed_tap(k, row, o.part / 2), x = transposed_tap(k, column, o.part % 2);
            return y < 0 || x < 0 ? 0.0 : weight_[((c * a_.outputs + o.channel) * k + y) * k + x];
        }
        const Index first = o.channel / (a_.outputs / a_.groups) * reads_;
        if (c < first || c >= first + reads_) return 0.0;
        return weight_[((o.channel * reads_ + c - first) * k + row) * k + column];
    }

private:
    const ConvLayer& a_;
    const float* weight_;
    Index channels_, reads_;
};

// Which channel of the maps side by side input `at` of the plan is, or -1 where it is padding.
Index channel_of_input(const ConvLayer& a, Index at) {
    Index c = 0;
    for (int k = 0; k < a.sources; ++k) {
        if (at < width_of(a.source[k])) return at < a.source[k].channels ? c + at : -1;
        at -= width_of(a.source[k]);
        c += a.source[k].channels;
    }
    return -1;
}

// [blocks of 16 outputs][rows, columns and inputs of its window][16], for bfloat16 two inputs at a time.
void pack_direct(const ConvLayer& a, const ConvPlan& p, const Taps& taps, char* to) {
    const Index depth = p.products == DType::bf16 ? 2 : 1;
    Index at = 0;
    for (Index block = 0; block < p.outputs / kBlock; ++block) {
        const ConvWindow w = window_of(a, p, block);
        for (Index row = w.row; row < w.row + w.rows; ++row) {
            for (Index column = w.column; column < w.column + w.columns; ++column) {
                for (Index i = w.from; i < w.to; ++i) {
                    const Index c = channel_of_input(a, i);
                    for (Index lane = 0; lane < kBlock; ++lane) {
                        const ConvOutput o = output_at(a, p, block * kBlock + lane);
                        const Index place = (i - w.from) / depth * depth * kBlock + lane * depth + (i - w.from) % depth;
                        put_number(to, at + place, p.products, taps(o, row, column, c));
                    }
                }
                at += (w.to - w.from) * kBlock;
            }
        }
    }
}

Index weight_numbers(const ConvLayer& a, const ConvPlan& p) {
    Index sum = 0;
    for (Index block = 0; block < p.outputs / kBlock; ++block) sum += window_of(a, p, block).size() * kBlock;
    return sum;
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

Index packed_bytes(const ConvLayer& a) {
    const ConvPlan p = plan_of(a);
    return rounded_up(parameter_bytes(p) + weight_numbers(a, p) * product_bytes(p), 64);
}

void pack(const ConvLayer& a, const float* weight, const float* bias, const float* slope1, const float* slope2,
          void* packed) {
    const ConvPlan p = plan_of(a);
    float* parameters = static_cast<float*>(packed);
    const float* given[3] = {bias, slope1, slope2};
    for (int k = 0; k < 3; ++k) {
        for (Index o = 0; o < p.outputs; ++o) {
            const Index channel = output_at(a, p, o).channel;
            parameters[k * p.outputs + o] = given[k] == nullptr || channel < 0 ? 0.0F : given[k][channel];
        }
    }
    pack_direct(a, p, Taps(a, weight), static_cast<char*>(packed) + parameter_bytes(p));
}

Index workspace_bytes(const ConvLayer& a, Index, Index, Index, int threads) {
    return threads * patch_bytes(a, plan_of(a));
}

const char* run(const ConvLayer& a, const ConvCall& call, const char* tier) {
    if (const char* wrong = check(a)) return wrong;
    if (const char* wrong = check_call(a, call)) return wrong;
    const Tier* chosen = pick_tier(tier);
    if (chosen == nullptr) return kNoTier;
    if (call.batch == 0 || places(a, call.height) == 0 || places(a, call.width) == 0) return nullptr;
#if defined(__x86_64__) || defined(_M_X64)
    if (plan_of(a).products == DType::bf16) return avx512bf16::conv_in_bf16(a, call);
#endif
    return chosen->conv(a, call);
}

}  // namespace unrain
