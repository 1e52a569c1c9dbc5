// Weights as the kernels of a convolution read them, and how much memory they and a call take. Compiled without SIMD
// flags: the packed weights are those of every tier.
#include <cstring>

#include "conv_plan.h"

namespace unrain {

namespace {

using Index = std::ptrdiff_t;

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
        const Index first = a_.groups == 1 ? 0 : o.channel / (a_.outputs / a_.groups) * reads_;
        if (c < first || c >= first + reads_) return 0.0;
        return weight_[((o.channel * reads_ + c - first) * k + row) * k + column];
    }

    // The k x k taps where they lie together, which is how training packs them in every step; null where they do not.
    const float* plain(ConvOutput o, Index c) const {
        if (a_.form != 0 || a_.groups != 1 || o.channel < 0 || c < 0) return nullptr;
        return weight_ + (o.channel * reads_ + c) * a_.kernel * a_.kernel;
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

// What the taps are multiplied by: Winograd's F(4x4, 3x3) at the points 0, +-sqrt(1/2), +-sqrt(2), infinity.
constexpr double kRoot = 1.41421356237309504880;
constexpr double kTapRows[kPatch][3] = {{1, 0, 0},
                                        {-2.0 / 3, -kRoot / 3, -1.0 / 3},
                                        {-2.0 / 3, kRoot / 3, -1.0 / 3},
                                        {1.0 / 6, kRoot / 6, 1.0 / 3},
                                        {1.0 / 6, -kRoot / 6, 1.0 / 3},
                                        {0, 0, 1}};

// A number of each of 16 outputs.
struct Lanes {
    double x[kBlock];
};

Lanes combine(const double (&by)[3], const Lanes& a, const Lanes& b, const Lanes& c) {
    const double first = by[0], second = by[1], third = by[2];
    Lanes sum;
    for (Index lane = 0; lane < kBlock; ++lane) {
        sum.x[lane] = first * a.x[lane] + second * b.x[lane] + third * c.x[lane];
    }
    return sum;
}

// [blocks of 16 outputs][36][inputs][16], for bfloat16 two inputs at a time.
void pack_winograd(const ConvLayer& a, const ConvPlan& p, const Taps& taps, char* to) {
    const Index depth = p.products == DType::bf16 ? 2 : 1, shift = 3 - p.window;  // of a transposed one's 2 x 2
    for (Index block = 0; block < p.outputs / kBlock; ++block) {
        ConvOutput output[kBlock];
        for (Index lane = 0; lane < kBlock; ++lane) output[lane] = output_at(a, p, block * kBlock + lane);
        for (Index i = 0; i < p.inputs; ++i) {
            const Index c = channel_of_input(a, i);
            Lanes g[3][3] = {}, rows[kPatch][3];
            for (Index lane = 0; lane < kBlock; ++lane) {
                if (const float* plain = taps.plain(output[lane], c)) {
                    for (Index tap = 0; tap < 9; ++tap) g[tap / 3][tap % 3].x[lane] = plain[tap];
                    continue;
                }
                for (Index row = shift; row < 3; ++row) {
                    for (Index column = shift; column < 3; ++column) {
                        g[row][column].x[lane] = taps(output[lane], row - shift, column - shift, c);
                    }
                }
            }
            for (Index u = 0; u < kPatch; ++u) {
                for (Index column = 0; column < 3; ++column) {
                    rows[u][column] = combine(kTapRows[u], g[0][column], g[1][column], g[2][column]);
                }
            }
            for (Index k = 0; k < kProducts; ++k) {
                const Lanes* row = rows[k / kPatch];
                const Lanes product = combine(kTapRows[k % kPatch], row[0], row[1], row[2]);
                const Index at = ((block * kProducts + k) * p.inputs + i / depth * depth) * kBlock + i % depth;
                if (depth == 1) {
                    float* numbers = reinterpret_cast<float*>(to) + at;
                    for (Index lane = 0; lane < kBlock; ++lane) numbers[lane] = static_cast<float>(product.x[lane]);
                    continue;
                }
                for (Index lane = 0; lane < kBlock; ++lane) {
                    put_number(to, at + lane * depth, p.products, product.x[lane]);
                }
            }
        }
    }
}

// [blocks of 16 outputs][window, window][16].
void pack_depthwise(const ConvLayer& a, const ConvPlan& p, const Taps& taps, char* to) {
    const Index each = p.window * p.window;
    for (Index o = 0; o < p.outputs; ++o) {
        const ConvOutput output = output_at(a, p, o);
        for (Index tap = 0; tap < each; ++tap) {
            const double x = taps(output, tap / p.window, tap % p.window, output.channel);
            put_number(to, (o / kBlock * each + tap) * kBlock + o % kBlock, DType::f32, x);
        }
    }
}

Index weight_numbers(const ConvLayer& a, const ConvPlan& p) {
    if (p.way == ConvWay::winograd) return kProducts * p.inputs * p.outputs;
    if (p.way == ConvWay::depthwise) return p.window * p.window * p.outputs;
    Index sum = 0;
    for (Index block = 0; block < p.outputs / kBlock; ++block) sum += window_of(a, p, block).size() * kBlock;
    return sum;
}

}  // namespace

using Index = std::ptrdiff_t;

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
    char* weights = static_cast<char*>(packed) + parameter_bytes(p);
    if (p.way == ConvWay::winograd) return pack_winograd(a, p, Taps(a, weight), weights);
    if (p.way == ConvWay::depthwise) return pack_depthwise(a, p, Taps(a, weight), weights);
    pack_direct(a, p, Taps(a, weight), weights);
}

Index workspace_bytes(const ConvLayer& a, Index, Index, Index, int threads) {
    const ConvPlan p = plan_of(a);
    return threads * (p.way == ConvWay::winograd ? winograd_bytes(p) : patch_bytes(a, p));
}

Index workspace_bytes(const ConvGradient& a) {
    const GradientPlan p(a);
    return (p.chunks * p.chunk_numbers() + a.threads * p.scratch_numbers()) * static_cast<Index>(sizeof(float));
}

}  // namespace unrain
