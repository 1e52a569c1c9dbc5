// Convolutions of every kind on every tier this machine has, against plain loops in double: buffers of exactly the size
// they may touch, workspace and outputs poisoned with NaN, 1 thread against 3 bit for bit.
#include "../../csrc/conv_plan.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "../../csrc/ops.h"
#include "check.h"

using namespace unrain;

namespace {

using Index = std::ptrdiff_t;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// Memory on a boundary of 64 whose end the address sanitizer watches.
class Block {
public:
    explicit Block(Index bytes) : memory_(std::aligned_alloc(64, static_cast<std::size_t>(rounded_up(bytes, 64)))) {
        std::memset(memory_.get(), 0xFF, static_cast<std::size_t>(rounded_up(bytes, 64)));  // NaN
    }
    void* data() const { return memory_.get(); }

private:
    struct Free {
        void operator()(void* p) const { std::free(p); }
    };
    std::unique_ptr<void, Free> memory_;
};

// A map of [pixels, stored] numbers.
struct Map {
    DType dtype;
    std::vector<unsigned char> bytes;

    Map(DType d, Index count) : dtype(d), bytes(static_cast<std::size_t>(count) * (d == DType::f32 ? 4 : 2), 0xFF) {}
    void* data() { return bytes.data(); }
    double get(Index at) const {
        std::uint32_t bits = 0;
        if (dtype == DType::f32) {
            std::memcpy(&bits, bytes.data() + 4 * at, 4);
        } else {
            std::memcpy(reinterpret_cast<unsigned char*>(&bits) + 2, bytes.data() + 2 * at, 2);
        }
        float x;
        std::memcpy(&x, &bits, 4);
        return x;
    }
    void set(Index at, double value) {
        const float x = static_cast<float>(value);
        std::uint32_t bits;
        std::memcpy(&bits, &x, 4);
        if (dtype == DType::f32) {
            std::memcpy(bytes.data() + 4 * at, &bits, 4);
        } else {
            std::memcpy(bytes.data() + 2 * at, reinterpret_cast<unsigned char*>(&bits) + 2, 2);
        }
    }
};

thread_local std::mt19937 numbers(7);

double draw() { return std::normal_distribution<double>()(numbers); }

std::vector<float> draws(Index count, double scale) {
    std::vector<float> all(static_cast<std::size_t>(count));
    for (float& x : all) x = static_cast<float>(scale * draw());
    return all;
}

double activated(Act act, double x, double slope) {
    switch (act) {
        case Act::none: return x;
        case Act::relu: return x > 0 || x != x ? x : 0;
        case Act::relu6: return x != x ? x : std::fmin(6, std::fmax(0, x));
        case Act::slope: return x > 0 ? x : slope * x;
        case Act::sigmoid: return 1 / (1 + std::exp(-x));
        case Act::tanh: return std::tanh(x);
        case Act::silu: return x / (1 + std::exp(-x));
        case Act::gelu: return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    }
    return kNan;
}

struct Case {
    ConvLayer layer;
    Index batch, height, width;
    std::vector<Map> x;
    std::vector<float> weight, bias, slope1, slope2;
    Map add, c;
    Index channels, stored, y_height, y_width;

    Case(const ConvLayer& a, Index b, Index h, Index w)
        : layer(a), batch(b), height(h), width(w), add(DType::f32, 0), c(DType::f32, 0) {
        const ConvPlan p = plan_of(a);
        channels = p.channels, stored = p.stored;
        const Index scale = p.parts == 4 ? 2 : 1;
        y_height = places(a, h) * scale, y_width = places(a, w) * scale;
        for (int k = 0; k < a.sources; ++k) {
            const Index numbers_each = stored_channels(a.source[k]);
            x.emplace_back(a.source[k].dtype, b * h * w * numbers_each);
            for (Index i = 0; i < b * h * w * numbers_each; ++i) {
                const bool padding = i % numbers_each >= a.source[k].channels;
                x.back().set(i, padding ? (a.source[k].thin ? 0.0 : 3.0) : draw());
            }
        }
        const Index each = input_channels(a) / a.groups * a.kernel * a.kernel;
        weight = draws(a.outputs * each, 1.0 / std::sqrt(static_cast<double>(each)));
        bias = draws(a.outputs, 0.3), slope1 = draws(a.outputs, 0.3), slope2 = draws(a.outputs, 0.3);
        if (a.adds) {
            add = Map(a.add_dtype, b * y_height * y_width * stored);
            for (Index i = 0; i < b * y_height * y_width * stored; ++i) {
                add.set(i, i % stored < channels ? draw() : 0.0);
            }
        }
        if (a.gates != 0) {
            c = Map(DType::f32, b * h * w * stored);
            for (Index i = 0; i < b * h * w * stored; ++i) c.set(i, draw());
        }
    }

    double pixel(Index image, Index row, Index column, Index channel) const {
        if (row < 0 || column < 0 || row >= height || column >= width) return 0;
        for (int k = 0; k < layer.sources; ++k) {
            const ConvSource& s = layer.source[k];
            if (channel < s.channels) {
                const Index at = ((image * height + row) * width + column) * stored_channels(s) + channel;
                return x[static_cast<std::size_t>(k)].get(at);
            }
            channel -= s.channels;
        }
        return kNan;
    }

    // Convolution and bias at a pixel of the result before any shuffle, as a textbook has it.
    double sum(Index image, Index row, Index column, Index o) const {
        const Index k = layer.kernel, inputs = input_channels(layer);
        double total = bias[static_cast<std::size_t>(o)];
        if (layer.form == 1) {
            const Index padding = k == 2 ? 0 : 1;
            for (Index c0 = 0; c0 < inputs; ++c0) {
                for (Index i = 0; i < k; ++i) {
                    for (Index j = 0; j < k; ++j) {
                        const Index up = row + padding - i, left = column + padding - j;
                        if (up % 2 != 0 || left % 2 != 0 || up < 0 || left < 0) continue;
                        total += pixel(image, up / 2, left / 2, c0) *
                                 weight[static_cast<std::size_t>(((c0 * layer.outputs + o) * k + i) * k + j)];
                    }
                }
            }
            return total;
        }
        const Index reads = inputs / layer.groups, first = o / (layer.outputs / layer.groups) * reads;
        const Index padding = k % 2 != 0 ? layer.dilation * (k - 1) / 2 : 0;
        for (Index c0 = 0; c0 < reads; ++c0) {
            for (Index i = 0; i < k; ++i) {
                for (Index j = 0; j < k; ++j) {
                    total += pixel(image, row * layer.stride - padding + i * layer.dilation,
                                   column * layer.stride - padding + j * layer.dilation, first + c0) *
                             weight[static_cast<std::size_t>(((o * reads + c0) * k + i) * k + j)];
                }
            }
        }
        return total;
    }

    double expected(Index image, Index row, Index column, Index channel, double* cell) const {
        const Index at = ((image * y_height + row) * y_width + column) * stored + channel;
        if (layer.gates != 0) {
            const int forgets = layer.gates == 4 ? 1 : 0;
            double gate[4];
            for (int g = 0; g < layer.gates; ++g) gate[g] = sum(image, row, column, g * channels + channel);
            *cell = activated(Act::sigmoid, gate[0], 0) * std::tanh(gate[1 + forgets]);
            if (forgets != 0) *cell += activated(Act::sigmoid, gate[1], 0) * c.get(at);
            return activated(Act::sigmoid, gate[2 + forgets], 0) * std::tanh(*cell);
        }
        Index o = channel;
        double value;
        if (layer.shuffle == 2) {
            o = channel * 4 + row % 2 * 2 + column % 2;
            value = sum(image, row / 2, column / 2, o);
        } else {
            value = sum(image, row, column, o);
        }
        value = activated(layer.act1, value, slope1[static_cast<std::size_t>(o)]);
        if (layer.adds) value += add.get(at);
        return activated(layer.act2, value, slope2[static_cast<std::size_t>(o)]);
    }
};

struct Result {
    Map y, c;
};

Result run_case(Case& t, const char* tier, int threads) {
    const Index count = t.batch * t.y_height * t.y_width * t.stored;
    Result r{Map(t.layer.y_dtype, count), Map(DType::f32, t.layer.gates != 0 ? count : 0)};
    const Block packed(packed_bytes(t.layer));
    pack(t.layer, t.weight.data(), t.bias.data(), t.slope1.data(), t.slope2.data(), packed.data());
    const Block workspace(workspace_bytes(t.layer, t.batch, t.height, t.width, threads));
    ConvCall call{};
    for (std::size_t k = 0; k < t.x.size(); ++k) call.x[k] = t.x[k].data();
    call.packed = packed.data(), call.workspace = workspace.data();
    call.add = t.add.data(), call.y = r.y.data();
    call.c = t.layer.gates == 4 ? static_cast<const float*>(t.c.data()) : nullptr;
    call.c_next = static_cast<float*>(r.c.data());
    call.batch = t.batch, call.height = t.height, call.width = t.width, call.threads = threads;
    const char* wrong = run(t.layer, call, tier);
    CHECK(wrong == nullptr, "%s", wrong);
    return r;
}

// Rounding of what is stored, of what is multiplied, and of float32 sums: Winograd's is several times a direct one's.
double tolerance(const ConvLayer& a, DType stored) {
    const ConvPlan p = plan_of(a);
    const bool winograd = p.way == ConvWay::winograd;
    const double sums = p.products == DType::bf16 ? (winograd ? 1e-1 : 3e-2) : (winograd ? 4e-5 : 4e-6);
    return sums + (stored == DType::bf16 ? 8e-3 : 0);
}

// What is expected of every number of y, and of the cells, in their order in y.
struct Expected {
    std::vector<double> y, c;

    explicit Expected(const Case& t) {
        for (Index at = 0; at < t.batch * t.y_height * t.y_width * t.stored; ++at) {
            const Index pixel = at / t.stored, row = pixel / t.y_width % t.y_height;
            double cell = 0;
            const bool padding = at % t.stored >= t.channels;
            y.push_back(padding ? 0 : t.expected(pixel / (t.y_height * t.y_width), row, pixel % t.y_width,
                                                 at % t.stored, &cell));
            c.push_back(cell);
        }
    }
};

void compare(const Case& t, const Expected& expected, const Result& r, const char* tier, const std::string& name) {
    double worst = 0, worst_c = 0;
    for (Index at = 0; at < t.batch * t.y_height * t.y_width * t.stored; ++at) {
        const auto k = static_cast<std::size_t>(at);
        const double got = r.y.get(at);
        if (at % t.stored >= t.channels) {
            const bool right = t.layer.y_thin ? got == 0 : std::isfinite(got);
            CHECK(right, "%s on %s: padding is %g", name.c_str(), tier, got);
            continue;
        }
        const double error = std::fabs(got - expected.y[k]) / (1 + std::fabs(expected.y[k]));
        worst = error <= worst ? worst : error;  // NaN is the worst
        if (t.layer.gates != 0) {
            const double c_error = std::fabs(r.c.get(at) - expected.c[k]) / (1 + std::fabs(expected.c[k]));
            worst_c = c_error <= worst_c ? worst_c : c_error;
        }
    }
    CHECK(worst <= tolerance(t.layer, t.layer.y_dtype), "%s on %s: error %g", name.c_str(), tier, worst);
    CHECK(worst_c <= tolerance(t.layer, DType::f32), "%s on %s: error of the cell %g", name.c_str(), tier, worst_c);
}

ConvSource wide(Index channels, DType dtype = DType::f32) { return {channels, false, dtype}; }
ConvSource thin(Index channels) { return {channels, true, DType::f32}; }

ConvLayer layer_of(const std::vector<ConvSource>& sources, Index outputs, int kernel = 3) {
    ConvLayer a{};
    a.sources = static_cast<int>(sources.size());
    for (std::size_t k = 0; k < sources.size(); ++k) a.source[k] = sources[k];
    a.outputs = outputs, a.kernel = kernel, a.stride = a.dilation = a.groups = a.shuffle = 1;
    a.y_thin = outputs <= 4;
    return a;
}

void in_bf16(ConvLayer& a) {
    for (int k = 0; k < a.sources; ++k) {
        if (!a.source[k].thin) a.source[k].dtype = DType::bf16;
    }
    a.maps = DType::bf16;
    if (!a.y_thin) a.y_dtype = DType::bf16;
}

void check_layer(const ConvLayer& a, const std::string& name, Index batch = 1, Index height = 7, Index width = 13) {
    const char* wrong = check(a);
    CHECK(wrong == nullptr, "%s: %s", name.c_str(), wrong);
    Case t(a, batch, height, width);
    const Expected expected(t);
    for (const Tier* const* tier = runnable_tiers(); *tier != nullptr; ++tier) {
        const Result one = run_case(t, (*tier)->name, 1), three = run_case(t, (*tier)->name, 3);
        compare(t, expected, one, (*tier)->name, name);
        CHECK(one.y.bytes == three.y.bytes && one.c.bytes == three.c.bytes, "%s: 3 threads differ", name.c_str());
    }
}

// As it is, with maps in bfloat16, and with products of bfloat16 where the machine has them.
void check_storages(ConvLayer a, const std::string& name, Index batch = 1, Index height = 7, Index width = 13) {
    check_layer(a, name, batch, height, width);
    in_bf16(a);
    check_layer(a, name + " in bfloat16", batch, height, width);
    if (!multiplies_bf16()) return;
    a.products = DType::bf16;
    check_layer(a, name + " multiplied in bfloat16", batch, height, width);
}

void check_shapes() {
    for (int kernel : {1, 3, 5, 7}) {
        for (int stride : {1, 2}) {
            ConvLayer a = layer_of({wide(16)}, 16, kernel);
            a.stride = stride;
            check_storages(a, "kernel " + std::to_string(kernel) + " stride " + std::to_string(stride));
        }
    }
    for (int side : {2, 4}) {
        ConvLayer a = layer_of({wide(32)}, 48, side);
        a.stride = side;
        check_storages(a, "as large as the stride", 2, 9, 14);
    }
    for (int dilation : {2, 3, 8}) {
        ConvLayer a = layer_of({wide(32)}, 32);
        a.dilation = dilation;
        check_storages(a, "dilation " + std::to_string(dilation), 1, 11, 21);
    }
    check_storages(layer_of({wide(32), wide(16), wide(32)}, 64), "three maps", 2, 9, 50);
    check_storages(layer_of({wide(20), wide(7), thin(3)}, 24), "maps with padding and a thin one");
    check_storages(layer_of(std::vector<ConvSource>(16, wide(16)), 32, 1), "16 maps, 1x1");
    check_storages(layer_of(std::vector<ConvSource>(16, thin(3)), 32), "16 thin maps");
    for (Index channels : {1, 2, 3, 4}) {
        check_storages(layer_of({thin(channels)}, 32), "thin", 1, 9, 17);
        ConvLayer a = layer_of({thin(channels), thin(3)}, 16, 3);
        a.stride = 2;
        check_storages(a, "two thin ones, stride 2", 2, 9, 17);
        check_storages(layer_of({wide(32)}, channels), "thin result", 2, 9, 17);
        check_storages(layer_of({thin(3)}, channels, 1), "thin to thin, 1x1");
    }
    for (Index side : {1, 2, 5}) check_storages(layer_of({wide(32)}, 32), "small picture", 3, side, 1 + side % 2);
    check_storages(layer_of({wide(64)}, 64), "more than a task", 1, 37, 53);
    check_storages(layer_of({wide(64)}, 128), "64 to 128", 1, 9, 9);
    check_storages(layer_of({wide(160)}, 16), "many inputs", 1, 6, 9);
}

void check_groups() {
    for (Index groups : {2, 4, 16, 32}) {
        ConvLayer a = layer_of({wide(64)}, 64);
        a.groups = static_cast<int>(groups);
        check_storages(a, "groups " + std::to_string(groups));
    }
    for (int kernel : {3, 5, 7}) {
        for (int stride : {1, 2}) {
            ConvLayer a = layer_of({wide(40)}, 40, kernel);
            a.groups = 40, a.stride = stride, a.act1 = Act::relu6;
            check_storages(a, "depthwise", 2, 9, 14);
            a.dilation = 2;
            check_storages(a, "depthwise, dilated", 1, 9, 14);
        }
    }
    ConvLayer a = layer_of({wide(24), thin(3), wide(9)}, 72);
    a.groups = 36;
    check_storages(a, "two outputs for each channel of three maps");
    a.groups = 3;
    check_storages(a, "groups across maps");
}

void check_twice_the_size() {
    for (int kernel : {2, 3, 4}) {
        for (Index outputs : {3, 16, 40}) {
            ConvLayer a = layer_of({wide(32), wide(16)}, outputs, kernel);
            a.form = 1, a.adds = true, a.act1 = Act::slope;
            check_storages(a, "transposed, kernel " + std::to_string(kernel), 2, 6, 11);
        }
    }
    for (int kernel : {1, 3}) {
        for (Index channels : {3, 16, 20}) {
            ConvLayer a = layer_of({wide(32)}, 4 * channels, kernel);
            a.shuffle = 2, a.y_thin = channels <= 4, a.act1 = Act::slope;
            check_storages(a, "shuffled", 2, 6, 11);
            a.adds = true, a.act1 = Act::none, a.act2 = Act::relu;
            check_storages(a, "shuffled and added", 2, 6, 11);
        }
    }
}

void check_endings() {
    for (int first = 0; first <= 7; ++first) {
        for (int second : {0, 1, 3, 4}) {
            for (bool adds : {false, true}) {
                ConvLayer a = layer_of({wide(16)}, 32);
                a.act1 = static_cast<Act>(first), a.act2 = static_cast<Act>(second), a.adds = adds;
                const std::string name = "acts " + std::to_string(first) + " " + std::to_string(second);
                check_storages(a, name, 1, 5, 9);
                a.source[0] = thin(3);
                check_storages(a, name + " of a thin map", 1, 5, 9);
                a = layer_of({wide(16)}, 3);
                a.act1 = static_cast<Act>(first), a.act2 = static_cast<Act>(second), a.adds = adds;
                check_storages(a, name + " into a thin map", 1, 5, 9);
            }
        }
    }
    ConvLayer mixed = layer_of({wide(32, DType::bf16), wide(16)}, 32);
    mixed.adds = true;
    mixed.add_dtype = DType::bf16;
    check_layer(mixed, "dtypes mixed");
    for (int gates : {3, 4}) {
        for (Index channels : {16, 32, 40}) {
            ConvLayer a = layer_of({wide(32), wide(16)}, gates * channels);
            a.gates = gates;
            check_storages(a, "gates " + std::to_string(gates), 2, 9, 14);
        }
        ConvLayer a = layer_of({thin(3), wide(32)}, gates * 32);
        a.gates = gates;
        check_storages(a, "gates of a thin map");
    }
}

void check_none() {
    for (Index kernel : {1, 2, 3}) {
        ConvLayer a = layer_of({wide(16)}, 16, static_cast<int>(kernel));
        a.stride = kernel == 2 ? 2 : 1;
        check_layer(a, "no picture", 0, 5, 5);
        check_layer(a, "no rows", 1, 0, 5);
        if (kernel == 2) check_layer(a, "smaller than the kernel", 1, 1, 1);
    }
}

// A NaN or an infinity in one pixel reaches, as no number, what reads it, through ReLU, too; what is far stays.
void check_not_numbers() {
    for (const double bad : {kNan, std::numeric_limits<double>::infinity()}) {
        for (const ConvSource source : {wide(32), thin(3)}) {
            for (const Act act : {Act::none, Act::relu, Act::relu6, Act::slope}) {
                ConvLayer a = layer_of({source}, 32);
                a.act1 = act;
                Case t(a, 1, 24, 24);
                t.x[0].set((12 * 24 + 12) * stored_channels(source), bad);
                for (const Tier* const* tier = runnable_tiers(); *tier != nullptr; ++tier) {
                    const Result r = run_case(t, (*tier)->name, 1);
                    if (bad != bad) CHECK(std::isnan(r.y.get((12 * 24 + 12) * 32)), "NaN is lost in act %d", int(act));
                    CHECK(std::isfinite(r.y.get(0)), "NaN is everywhere");
                    bool lost = true;
                    for (Index o = 0; o < 32; ++o) lost = lost && std::isfinite(r.y.get((12 * 24 + 12) * 32 + o));
                    CHECK(!lost || act == Act::relu6, "infinity is lost in act %d", int(act));
                }
            }
        }
    }
}

// The gradients to weights and bias on every tier, against sums in double; 1 thread against 3 bit for bit.
void check_gradient(Index inputs, Index outputs, int dilation, DType dtype, Index batch, Index height, Index width) {
    const Index stored = rounded_up(inputs, kBlock), places = rounded_up(outputs, kBlock);
    Map x(dtype, batch * height * width * stored), grad(dtype, batch * height * width * places);
    for (Index i = 0; i < batch * height * width * stored; ++i) x.set(i, i % stored < inputs ? draw() : 3.0);
    for (Index i = 0; i < batch * height * width * places; ++i) grad.set(i, i % places < outputs ? draw() : 3.0);
    ConvGradient a{};
    a.x = x.data(), a.grad = grad.data(), a.dtype = dtype, a.inputs = inputs, a.outputs = outputs;
    a.dilation = dilation, a.batch = batch, a.height = height, a.width = width;
    const auto pixel = [&](const Map& map, Index each, Index image, Index row, Index column, Index channel) {
        if (row < 0 || column < 0 || row >= height || column >= width) return 0.0;
        return map.get(((image * height + row) * width + column) * each + channel);
    };
    std::vector<double> weights(static_cast<std::size_t>(outputs * inputs * 9)), biases;
    for (Index o = 0; o < outputs; ++o) {
        biases.push_back(0);
        for (Index at = 0; at < batch * height * width; ++at) {
            const Index image = at / (height * width), row = at / width % height, column = at % width;
            const double from = grad.get(at * places + o);
            biases.back() += from;
            for (Index i = 0; i < inputs * 9; ++i) {
                const Index up = row + (i / 3 % 3 - 1) * dilation, left = column + (i % 3 - 1) * dilation;
                weights[static_cast<std::size_t>(o * inputs * 9 + i)] +=
                    from * pixel(x, stored, image, up, left, i / 9);
            }
        }
    }
    const double room = 2e-5 * std::sqrt(static_cast<double>(batch * height * width));
    for (const Tier* const* tier = runnable_tiers(); *tier != nullptr; ++tier) {
        std::vector<float> found[2], sums[2];
        for (int k = 0; k < 2; ++k) {
            a.threads = k == 0 ? 1 : 3;
            const Block workspace(workspace_bytes(a));
            found[k].assign(weights.size(), std::nanf("")), sums[k].assign(biases.size(), std::nanf(""));
            a.workspace = workspace.data(), a.grad_weight = found[k].data(), a.grad_bias = sums[k].data();
            const char* wrong = run(a, (*tier)->name);
            CHECK(wrong == nullptr, "%s", wrong);
        }
        for (std::size_t i = 0; i < weights.size(); ++i) {
            const double error = std::fabs(found[0][i] - weights[i]);
            CHECK(error <= room, "gradient to weight %d on %s: error %g", int(i), (*tier)->name, error);
        }
        for (std::size_t o = 0; o < biases.size(); ++o) {
            const double error = std::fabs(sums[0][o] - biases[o]);
            CHECK(error <= room, "gradient to bias %d on %s: error %g", int(o), (*tier)->name, error);
        }
        CHECK(found[0] == found[1] && sums[0] == sums[1], "gradient on %s: 3 threads differ", (*tier)->name);
    }
}

void check_gradients() {
    for (const DType dtype : {DType::f32, DType::bf16}) {
        for (int dilation : {1, 2, 5}) check_gradient(16, 32, dilation, dtype, 2, 9, 14);
        for (Index channels : {3, 20}) check_gradient(channels, 23 - channels, 1, dtype, 1, 5, 7);
        check_gradient(16, 16, 1, dtype, 1, 1, 1);
        check_gradient(16, 16, 1, dtype, 0, 5, 5);
    }
    check_gradient(16, 16, 1, DType::f32, 1, 61, 70);  // chunks
    ConvGradient a{};
    a.inputs = a.outputs = 16, a.dilation = 1;
    CHECK(check(a) != nullptr, "taken: no threads");
    a.threads = 1;
    CHECK(check(a) == nullptr, "%s", check(a));
    CHECK(run(a) != nullptr, "taken: no memory");
}

void check_refusals() {
    const ConvLayer good = layer_of({wide(16)}, 16);
    const auto refused = [&](const char* what, auto change) {
        ConvLayer a = good;
        change(a);
        CHECK(check(a) != nullptr, "taken: %s", what);
    };
    CHECK(check(good) == nullptr, "%s", check(good));
    refused("no source", [](ConvLayer& a) { a.sources = 0; });
    refused("17 sources", [](ConvLayer& a) { a.sources = 17; });
    refused("thin of 5", [](ConvLayer& a) { a.source[0] = thin(5); });
    refused("kernel 2, stride 1", [](ConvLayer& a) { a.kernel = 2; });
    refused("groups that do not divide", [](ConvLayer& a) { a.groups = 3; });
    refused("transposed kernel 5", [](ConvLayer& a) { a.form = 1, a.kernel = 5; });
    refused("shuffle of 18", [](ConvLayer& a) { a.shuffle = 2, a.outputs = 18; });
    refused("2 gates", [](ConvLayer& a) { a.gates = 2; });
    refused("an unknown activation", [](ConvLayer& a) { a.act1 = static_cast<Act>(8); });
    refused("too many channels", [](ConvLayer& a) { a.source[0].channels = Index{1} << 40; });
    refused("a thin result of 16", [](ConvLayer& a) { a.y_thin = true; });
    if (!multiplies_bf16()) refused("products of bfloat16", [](ConvLayer& a) { a.products = DType::bf16; });
}

}  // namespace

void check_conv();
void check_conv() {
    check_refusals();
    check_none();
    check_shapes();
    check_groups();
    check_twice_the_size();
    check_gradients();
    check_not_numbers();
}

void check_conv_endings();
void check_conv_endings() { check_endings(); }
