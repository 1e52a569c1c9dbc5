// Every native op once, on one thread and one SIMD tier, each behind a function of its own name: what callgrind counts.
//
//     g++ -std=c++17 -O3 ... -Icsrc counts.cpp csrc/conv_pack.cpp csrc/tiers/avx2.cpp -DTIER=avx2 -o counts
//     valgrind --tool=callgrind ./counts
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "ops.h"

namespace unrain {
namespace TIER {
extern const Tier tier;
}
}  // namespace unrain

namespace {

using unrain::DType;
using unrain::TIER::tier;

constexpr std::ptrdiff_t kChannels = 32, kSide = 64, kPixels = kSide * kSide, kQueries = 1024, kItems = 20;

// Values between -1 and 1 that are not all alike.
std::vector<float> numbers(std::ptrdiff_t count) {
    std::vector<float> made(static_cast<std::size_t>(count));
    std::uint32_t state = 1;
    for (float& each : made) {
        state = state * 1664525U + 1013904223U;
        each = static_cast<float>(state >> 8) / 8388608.0F - 1.0F;
    }
    return made;
}

void check(const char* wrong) {
    if (wrong == nullptr) return;
    std::fprintf(stderr, "%s\n", wrong);
    std::exit(1);
}

}  // namespace

#define COUNTED extern "C" __attribute__((noinline)) void

COUNTED counted_lstm_gates_forward(const unrain::LstmGates& args) { check(tier.lstm_gates(args, false)); }
COUNTED counted_lstm_gates_backward(const unrain::LstmGates& args) { check(tier.lstm_gates(args, true)); }
COUNTED counted_gru_gates_forward(const unrain::GruGates& args) { check(tier.gru_gates(args, false)); }
COUNTED counted_gru_gates_backward(const unrain::GruGates& args) { check(tier.gru_gates(args, true)); }
COUNTED counted_conv3x3_forward(const unrain::ConvLayer& layer, const unrain::ConvCall& call) {
    check(tier.conv(layer, call));
}
COUNTED counted_conv3x3_backward(const unrain::ConvGradient& args) { check(tier.conv_gradient(args)); }
COUNTED counted_charbonnier_forward(const unrain::Charbonnier& args) { check(tier.charbonnier(args, false)); }
COUNTED counted_charbonnier_backward(const unrain::Charbonnier& args) { check(tier.charbonnier(args, true)); }
COUNTED counted_gaussian_pyramid_forward(const unrain::GaussianPyramid& args) {
    check(tier.gaussian_pyramid(args, false));
}
COUNTED counted_gaussian_pyramid_backward(const unrain::GaussianPyramid& args) {
    check(tier.gaussian_pyramid(args, true));
}
COUNTED counted_frame_to_tensor_forward(const unrain::FrameToTensor& args) { check(tier.frame_to_tensor(args, false)); }
COUNTED counted_tensor_to_frame_forward(const unrain::TensorToFrame& args) { check(tier.tensor_to_frame(args, false)); }
COUNTED counted_ssim_forward(const unrain::Ssim& args) { check(tier.ssim(args, false)); }
COUNTED counted_ssim_backward(const unrain::Ssim& args) { check(tier.ssim(args, true)); }
COUNTED counted_memory_read_forward(const unrain::MemoryRead& args) { check(tier.memory_read(args, false)); }
COUNTED counted_memory_read_backward(const unrain::MemoryRead& args) { check(tier.memory_read(args, true)); }
COUNTED counted_memory_update_forward(const unrain::MemoryUpdate& args) { check(tier.memory_update(args, false)); }
COUNTED counted_memory_update_backward(const unrain::MemoryUpdate& args) { check(tier.memory_update(args, true)); }

namespace {

void lstm_gates() {
    auto pre = numbers(4 * kChannels * kPixels), c = numbers(kChannels * kPixels), h = c, next = c, grad = c;
    auto grad_pre = pre;
    unrain::LstmGates args{};
    args.pre = pre.data(), args.c = c.data(), args.rows = 1, args.inner = kChannels * kPixels;
    args.dtype = args.state_dtype = DType::f32, args.threads = 1;
    args.h = h.data(), args.c_next = next.data();
    counted_lstm_gates_forward(args);
    args.grad_h = args.grad_c_next = grad.data(), args.grad_pre = grad_pre.data(), args.grad_c = h.data();
    counted_lstm_gates_backward(args);
}

void gru_gates() {
    auto gates = numbers(2 * kChannels * kPixels), h = numbers(kChannels * kPixels), next = h, grad = h, grad_h = h;
    auto candidate = h, hidden = h, grad_z = h, grad_candidate = h, grad_r = h, grad_hidden = h;
    unrain::GruGates args{};
    args.z = gates.data(), args.r = gates.data() + kChannels * kPixels, args.candidate = candidate.data();
    args.hidden = hidden.data(), args.h = h.data(), args.rows = 1, args.inner = kChannels * kPixels;
    args.dtype = args.state_dtype = DType::f32, args.activation = unrain::Act::tanh, args.threads = 1;
    args.h_next = next.data();
    counted_gru_gates_forward(args);
    args.grad = grad.data(), args.grad_z = grad_z.data(), args.grad_candidate = grad_candidate.data();
    args.grad_h = grad_h.data(), args.grad_r = grad_r.data(), args.grad_hidden = grad_hidden.data();
    counted_gru_gates_backward(args);
}

void conv3x3() {
    auto x = numbers(kChannels * kPixels), weight = numbers(9 * kChannels * kChannels), bias = numbers(kChannels), y = x;
    unrain::ConvLayer layer{};
    layer.sources = 1, layer.source[0] = {kChannels, false, DType::f32}, layer.outputs = kChannels, layer.kernel = 3;
    layer.stride = layer.dilation = layer.groups = layer.shuffle = 1;
    const auto aligned = [](std::ptrdiff_t bytes) { return std::aligned_alloc(64, static_cast<std::size_t>(bytes)); };
    void* packed = aligned(unrain::packed_bytes(layer));
    unrain::pack(layer, weight.data(), bias.data(), nullptr, nullptr, packed);
    unrain::ConvCall call{};
    call.x[0] = x.data(), call.packed = packed, call.y = y.data(), call.batch = 1;
    call.height = call.width = kSide, call.threads = 1;
    call.workspace = aligned((unrain::workspace_bytes(layer, 1, kSide, kSide, 1) + 63) / 64 * 64);
    counted_conv3x3_forward(layer, call);
    unrain::ConvGradient args{};
    args.x = x.data(), args.grad = y.data(), args.dtype = DType::f32, args.inputs = args.outputs = kChannels;
    args.dilation = args.threads = 1, args.batch = 1, args.height = args.width = kSide;
    args.grad_weight = weight.data(), args.grad_bias = bias.data();
    args.workspace = aligned((unrain::workspace_bytes(args) + 63) / 64 * 64);
    counted_conv3x3_backward(args);
    std::free(args.workspace);
    std::free(call.workspace);
    std::free(packed);
}

void charbonnier() {
    auto pred = numbers(3 * kPixels), target = numbers(3 * kPixels + 1), grad = pred;
    float loss = 0, one = 1;
    unrain::Charbonnier args{};
    args.pred = pred.data(), args.target = target.data() + 1, args.count = 3 * kPixels, args.dtype = DType::f32;
    args.eps = 1e-3F, args.reduction = unrain::Reduction::mean, args.loss = &loss, args.threads = 1;
    counted_charbonnier_forward(args);
    args.grad_loss = &one, args.grad_pred = grad.data();
    counted_charbonnier_backward(args);
}

void gaussian_pyramid() {
    auto x = numbers(3 * kPixels), half = x, quarter = x, grad = x;
    unrain::GaussianPyramid args{};
    args.x = x.data(), args.pictures = 3, args.height = args.width = kSide, args.channels = 1;
    args.kernel = unrain::PyramidKernel::binomial, args.count = 2, args.factors[0] = 2, args.factors[1] = 4;
    args.dtype = DType::f32, args.threads = 1;
    args.levels[0] = half.data(), args.levels[1] = quarter.data();
    counted_gaussian_pyramid_forward(args);
    args.grad_levels[0] = half.data(), args.grad_levels[1] = quarter.data(), args.grad_x = grad.data();
    counted_gaussian_pyramid_backward(args);
}

void frames() {
    std::vector<std::uint8_t> frame(3 * kPixels, 77);
    auto image = numbers(3 * kPixels);
    unrain::FrameToTensor to{};
    to.frame = frame.data(), to.image = image.data(), to.batch = 1, to.height = to.width = kSide;
    to.padded_height = to.padded_width = kSide, to.dtype = DType::f32, to.threads = 1;
    counted_frame_to_tensor_forward(to);
    unrain::TensorToFrame from{};
    from.image = image.data(), from.frame = frame.data(), from.batch = 1, from.image_height = from.image_width = kSide;
    from.height = from.width = kSide, from.dtype = DType::f32, from.threads = 1;
    counted_tensor_to_frame_forward(from);
}

void ssim() {
    auto x = numbers(3 * kPixels), y = numbers(3 * kPixels + 1), grad = x;
    float result = 0, one = 1;
    unrain::Ssim args{};
    args.x = x.data(), args.y = y.data() + 1, args.pictures = 3, args.height = args.width = kSide, args.channels = 1;
    args.data_range = 1.0F, args.dtype = DType::f32, args.result = &result, args.threads = 1;
    const float taps[6] = {0.00103F, 0.00760F, 0.03600F, 0.10936F, 0.21301F, 0.26601F};
    for (int k = 0; k < 6; ++k) args.taps[k] = taps[k];
    counted_ssim_forward(args);
    args.grad = &one, args.grad_x = grad.data();
    counted_ssim_backward(args);
}

void memory() {
    auto query = numbers(kQueries * 64), items = numbers(kItems * 64), read = query, grad = query, grad_items = items;
    unrain::MemoryRead args{};
    args.query = query.data(), args.items = items.data(), args.queries = kQueries, args.items_count = kItems;
    args.columns = 64, args.dtype = DType::f32, args.read = read.data(), args.threads = 1;
    counted_memory_read_forward(args);
    args.grad_read = read.data(), args.grad_query = grad.data(), args.grad_items = grad_items.data();
    counted_memory_read_backward(args);
    unrain::MemoryUpdate update{};
    update.query = query.data(), update.items = items.data(), update.queries = kQueries, update.items_count = kItems;
    update.columns = 64, update.dtype = DType::f32, update.result = grad_items.data(), update.threads = 1;
    counted_memory_update_forward(update);
    auto result = items;
    update.grad = result.data(), update.grad_query = grad.data(), update.grad_items = grad_items.data();
    counted_memory_update_backward(update);
}

}  // namespace

int main() {
    lstm_gates();
    gru_gates();
    conv3x3();
    charbonnier();
    gaussian_pyramid();
    frames();
    ssim();
    memory();
    return 0;
}
